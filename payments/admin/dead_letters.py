"""Operators' page of dead letters: replay or close, with a reason."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.admin.lists import Searchable, WithPayment
from payments.models import DeadLetter
from payments.settle import dead_letters
from payments.settle.dead_letters import BookedAsExternal
from registry.operators.confirm import Done, Order, guarded
from registry.operators.lists import (
    CappedPaginator,
    TenantFilter,
    exact,
    pill,
    since,
)
from registry.operators.scope import TenantScoped


class ResolutionFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise: they are what the page is for."""

    title = parameter_name = "resolution"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), *DeadLetter.Resolution.choices, ("all", "all")]

    def value(self) -> str:
        return super().value() or "open"

    def choices(self, changelist: Any) -> Iterator[Any]:
        for value, title in self.lookup_choices:
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        if self.value() == "all":
            return queryset
        return queryset.filter(resolution="" if self.value() == "open" else self.value())


def _replay(page: TenantScoped, order: Order) -> Done:
    done, refused = 0, 0
    for letter in order.rows:
        try:
            done += dead_letters.replay_sync(dead_letter_id=letter.pk, actor=order.actor, reason=order.reason)
        except BookedAsExternal as error:
            refused += 1
            page.message_user(order.request, f"{letter.payment_id}: {error.detail}", messages.ERROR)
    return Done(rows=done, lost=len(order.rows) - done - refused)


def _close(page: TenantScoped, order: Order) -> Done:
    ids = [letter.pk for letter in order.rows]
    done = dead_letters.close_all_sync(dead_letter_ids=ids, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(ids) - done)


@admin.register(DeadLetter)
class DeadLetterAdmin(WithPayment, Searchable):
    paginator = CappedPaginator
    list_display = ["code", "detail", "payment_link", "payment_status", "tenant", "created", "resolved"]
    list_filter = [ResolutionFilter, TenantFilter, since("created_at", "created")]
    list_select_related = ["tenant"]
    list_display_links = ["code"]
    sortable_by = ()
    fields = ("code", "detail", "payment_link", "payment_status", "tenant", "created_at", "resolved", "resolved_at")
    readonly_fields = fields
    actions = [
        guarded(
            "deadletter.replay",
            label="Replay",
            warning=(
                "Failed payments are queued again. Payments in doubt are asked about at the same processor first; "
                "nothing is charged twice."
            ),
            expects={"resolution": ""},
            perform=_replay,
        ),
        guarded(
            "deadletter.close",
            label="Close without replay",
            warning="The letters are put aside. The payments stay as they are.",
            expects={"resolution": ""},
            perform=_close,
        ),
    ]

    def name_of(self, row: DeadLetter) -> str:
        payment = self.found(row)
        standing = payment.status if payment else "gone"
        return f"{row.code}: payment {payment or row.payment_id} of {row.tenant}, {standing}"

    @admin.display(description="created")
    def created(self, letter: DeadLetter) -> SafeString | str:
        return exact(letter.created_at)

    @admin.display(description="resolved")
    def resolved(self, letter: DeadLetter) -> SafeString | str:
        if not letter.resolution:
            return pill("○", "amber", "open")
        return f"{letter.get_resolution_display()} by {letter.resolved_by}"
