"""The rows of payments that the tenants' page counts and links."""

from collections.abc import Sequence

from django.db import models

from payments.models import DeadLetter, Difference, Payment, Processor, Rollup
from registry.admin.belongings import BELONGINGS, Belonging, rows_by_tenant


def booked_by_tenant(tenants: Sequence[int]) -> dict[int, int]:
    """Booked payments per tenant, from the hourly roll-ups: counting the payments would scan them."""
    found = (
        Rollup.objects.filter(tenant_id__in=tenants, width=3600).values("tenant_id").annotate(n=models.Sum("payments"))
    )
    return {row["tenant_id"]: row["n"] for row in found}


BELONGINGS += [
    Belonging(Processor, "processors", rows_by_tenant(Processor.objects.all())),
    Belonging(Payment, "booked payments", booked_by_tenant),
    Belonging(DeadLetter, "open dead letters", rows_by_tenant(DeadLetter.objects.filter(resolution=""))),
    Belonging(Difference, "open discrepancies", rows_by_tenant(Difference.objects.filter(resolution=""))),
]
