"""Operators' page of the message queue's dead letters."""

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.utils.safestring import SafeString

from queueing.admin.queues import console_link
from queueing.broker import operate
from queueing.models.broker import DeadMessage
from queueing.templatetags.queues import group as named
from registry.operators.cells import breakable, exact, pill
from registry.operators.lists import ALL, CappedPaginator, OneTenantFilter, choices_of, since
from registry.operators.scope import TenantScoped
from registry.operators.sections import DECIDE

StateFilter = choices_of(
    "state",
    {
        "open": ("open", Q(ended_at=None)),
        "ended": ("replayed or purged", Q(ended_at__isnull=False)),
        "all": ALL,
    },
    default="open",
)


@admin.register(DeadMessage)
class DeadMessageAdmin(TenantScoped):
    section, place, purpose = DECIDE, 3, "Messages of queues that a group could not process: replay or purge."
    paginator = CappedPaginator
    list_display = ["reason_given", "queue_link", "partition_name", "group", "attempts", "failed", "state", "tenant"]
    list_filter = [StateFilter, OneTenantFilter, since("failed_at", "failed")]
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
    actions = [operate.REPLAY, operate.PURGE]

    def name_of(self, row: Any) -> str:
        return f"{row.error[:120] or 'no reason was given'}: {row.transaction_id} of {row.queue}, {row.tenant}"

    @admin.display(description="error")
    def reason_given(self, letter: DeadMessage) -> SafeString | str:
        return breakable(letter.error[:120]) or "no reason was given"

    @admin.display(description="queue")
    def queue_link(self, letter: DeadMessage) -> SafeString:
        return console_link(letter.queue, "queue_dead_letters", breakable(letter.queue.name))

    @admin.display(description="group")
    def group(self, letter: DeadMessage) -> SafeString:
        return breakable(named(letter.group_name))

    @admin.display(description="failed")
    def failed(self, letter: DeadMessage) -> SafeString | str:
        return exact(letter.failed_at)

    @admin.display(description="state")
    def state(self, letter: DeadMessage) -> SafeString:
        return pill("–", "grey", "replayed or purged") if letter.ended_at else pill("✕", "red", "open")
