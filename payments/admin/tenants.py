"""What payments adds to the tenants' page: links to what belongs to a tenant, with numbers."""

from collections.abc import Sequence

from django.db import models

from payments.models import DeadLetter, Difference, Payment, Processor, Rollup
from registry.admin.belongings import BELONGINGS, Belonging, rows_by_tenant


def booked_by_tenant(tenants: Sequence[int]) -> dict[int, int]:
    """From the hourly roll-ups: counting the payments themselves takes as long as there are payments."""
    found = (
        Rollup.objects.filter(tenant_id__in=tenants, width=3600).values("tenant_id").annotate(n=models.Sum("payments"))
    )
    return {row["tenant_id"]: row["n"] for row in found}


BELONGINGS += [
    Belonging(Processor, "processors", rows_by_tenant(Processor.objects.all())),
    Belonging(Payment, "booked payments", booked_by_tenant),
    Belonging(DeadLetter, "open dead letters", rows_by_tenant(DeadLetter.objects.filter(resolution=""))),
    Belonging(Difference, "open differences", rows_by_tenant(Difference.objects.filter(resolution=""))),
]
