"""The rows that tenants own: their numbers and links on the tenants' page, registered by each app."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import models

from registry.models import ApiKey


@dataclass(frozen=True)
class Belonging:
    """A kind of row that tenants own, counted and linked on their page. Other apps add theirs to BELONGINGS."""

    model: type[models.Model]
    words: str  # "keys"
    count: Callable[[Sequence[int]], dict[int, int]]  # tenant ids → how many, in one query

    def counted(self, number: int) -> str:
        """1 key, 2 keys."""
        if number != 1:
            return f"{number:,} {self.words}"
        return f"1 {self.words[:-3]}y" if self.words.endswith("ies") else f"1 {self.words.removesuffix('s')}"


def rows_by_tenant(queryset: models.QuerySet) -> Callable[[Sequence[int]], dict[int, int]]:
    """For small tables: a plain count per tenant."""

    def count(tenants: Sequence[int]) -> dict[int, int]:
        found = queryset.filter(tenant_id__in=tenants).order_by().values("tenant_id").annotate(n=models.Count("*"))
        return {row["tenant_id"]: row["n"] for row in found}

    return count


BELONGINGS: list[Belonging] = [Belonging(ApiKey, "keys", rows_by_tenant(ApiKey.objects.filter(revoked_at=None)))]
