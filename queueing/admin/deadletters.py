"""Operators' page of the message queue's dead letters: replay or purge, with a reason."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_async_backend.db.transaction import async_atomic

from queueing.admin.queues import console_link
from queueing.broker import dead_letters
from queueing.broker.models import DeadMessage
from queueing.templatetags.queues import group as named
from registry.data.loop import sync_twin
from registry.errors import Problem
from registry.operators.confirm import Done, Order, guarded, moves
from registry.operators.lists import CappedPaginator, OneTenantFilter, exact, pill, since
from registry.operators.scope import TenantScoped
from registry.tenants import audit


class OpenFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise: they are what the page is for."""

    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("ended", "replayed or purged"), ("all", "all")]

    def value(self) -> str:
        return super().value() or "open"

    def choices(self, changelist: Any) -> Iterator[Any]:
        for value, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": self.value() == value, "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        return queryset if self.value() == "all" else queryset.filter(ended_at__isnull=self.value() == "open")


async def _replay_all(letters: Sequence[tuple[int, int]], actor: str, reason: str) -> int:
    """Push these (tenant, number) again, and record it tenant by tenant; how many were."""
    done = 0
    for tenant_id in sorted({tenant for tenant, _ in letters}):
        mine = [number for tenant, number in letters if tenant == tenant_id]
        async with async_atomic():
            moved = [number for number in mine if await _replayed(tenant_id, number)]
            await audit.record(
                actor=actor,
                action="deadmessage.replay",
                target=f"dead letters {', '.join(map(str, mine[:5]))}",
                tenant_id=tenant_id,
                rows=len(moved),
                reason=reason,
                detail={"ids": moved},
            )
        done += len(moved)
    return done


async def _replayed(tenant_id: int, number: int) -> bool:
    try:
        return (await dead_letters.replay(tenant_id, str(number))).verdict == dead_letters.MOVED
    except Problem:  # somebody was faster, or it cannot be read
        return False


_replay_all_sync = sync_twin(_replay_all)


def _replay(page: TenantScoped, order: Order) -> Done:
    letters = [(letter.tenant_id, letter.pk) for letter in order.rows]
    done = _replay_all_sync(letters, order.actor, order.reason)
    return Done(rows=done, lost=len(letters) - done)


@admin.register(DeadMessage)
class DeadMessageAdmin(TenantScoped):
    paginator = CappedPaginator
    list_display = ["reason_given", "queue_link", "partition_name", "group", "attempts", "failed", "state", "tenant"]
    list_filter = [OpenFilter, OneTenantFilter, since("failed_at", "given up")]
    list_select_related = ["tenant", "queue__tenant"]
    list_display_links = ["reason_given"]
    search_fields = ["transaction_id__exact"]
    search_help_text = "A whole transaction id."
    sortable_by = ()
    ordering = ("-id",)
    fields = (
        "error", "queue_link", "partition_name", "group", "seq", "transaction_id", "producer", "attempts", "created_at",
        "failed", "state", "tenant",
    )  # fmt: skip
    readonly_fields = fields
    actions = [
        guarded(
            "deadmessage.replay",
            label="Replay",
            warning="Each is pushed once more, to the end of its partition, and leaves the dead letters. All groups get it.",
            expects={"ended_at": None},
            perform=_replay,
        ),
        guarded(
            "deadmessage.purge",
            label="Purge",
            warning="They leave the dead letters, and are deleted with their payloads. Nothing brings them back.",
            expects={"ended_at": None},
            perform=moves("deadmessage.purge", expects={"ended_at": None}, sets=lambda: {"ended_at": Now()}),
        ),
    ]

    def name_of(self, row: Any) -> str:
        return f"{row.error[:120] or 'no reason was given'}: {row.transaction_id} of {row.queue}, {row.tenant}"

    @admin.display(description="error")
    def reason_given(self, letter: DeadMessage) -> str:
        return letter.error[:120] or "no reason was given"

    @admin.display(description="queue")
    def queue_link(self, letter: DeadMessage) -> SafeString:
        return console_link(letter.queue, "queue_dead_letters", letter.queue.name)

    @admin.display(description="group")
    def group(self, letter: DeadMessage) -> str:
        return named(letter.group_name)

    @admin.display(description="given up")
    def failed(self, letter: DeadMessage) -> SafeString | str:
        return exact(letter.failed_at)

    @admin.display(description="state")
    def state(self, letter: DeadMessage) -> SafeString:
        return pill("–", "grey", "replayed or purged") if letter.ended_at else pill("✕", "red", "open")
