"""Admin lists of tables that grow without end: one tenant at a time, newest first, searched only by what an index answers."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import models
from django.http import HttpRequest

from registry.operators.lists import BoundedList, CappedPaginator
from registry.operators.scope import TenantScoped

LARGEST_ID = 2**63 - 1


class Searchable(TenantScoped):
    """Searches by a whole correlation id, or by a row's number."""

    search_fields = ("id",)
    search_help_text = "A whole correlation id, or the row's number."

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, term: str
    ) -> tuple[models.QuerySet, bool]:
        term = term.strip()
        if not term:
            return queryset, False
        try:
            return self.by_correlation(queryset, UUID(term)), False
        except ValueError:
            pass
        if term.isascii() and term.isdigit() and int(term) <= LARGEST_ID:
            return queryset.filter(id=int(term)), False
        self.message_user(request, "Search for a whole correlation id, or for a number.", messages.WARNING)
        return queryset.none(), False

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        """The rows that belong to the object with this id."""
        raise NotImplementedError


class HotList(Searchable, BoundedList):
    """Read-only rows of one tenant, newest first and in no other order."""

    paginator = CappedPaginator
    sortable_by = ()
    ordering = ("-id",)
    actions: Any = None  # unless a subclass has some
    change_list_template = "admin/capped_change_list.html"
