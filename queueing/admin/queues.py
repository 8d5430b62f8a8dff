"""Operators' pages of queues and consumer groups, with links to the console."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models.functions import Greatest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queueing.models.broker import Consumer, DeadMessage, Group, Partition, Queue
from queueing.templatetags.queues import address
from queueing.templatetags.queues import group as named
from registry.admin.belongings import BELONGINGS, Belonging, rows_by_tenant
from registry.operators.cells import breakable, exact, link_to, link_to_list
from registry.operators.lists import Attaching, CappedPaginator, TenantFilter, since
from registry.operators.sections import WORK

BELONGINGS.append(Belonging(Queue, "queues", rows_by_tenant(Queue.objects.all())))


def console_link(queue: Queue, page: str = "queue", text: str = "in the console") -> SafeString:
    return format_html('<a href="{}">{}</a>', address(page, queue.name, tenant=queue.tenant.slug), text)


def _counted(rows: models.QuerySet, key: str) -> dict[int, int]:
    return dict(rows.order_by().values_list(key).annotate(n=models.Count("*")).values_list(key, "n"))


@admin.register(Queue)
class QueueAdmin(Attaching):
    section, place, purpose = WORK, 6, "Queues and their options; the console shows their messages."
    paginator = CappedPaginator
    list_display = ["label", "partition_count", "dead", "encrypted", "created", "look", "tenant"]
    list_filter = [TenantFilter, "encrypted"]
    list_select_related = ["tenant"]
    search_fields = ["name"]
    sortable_by = ()
    fields = (
        "name", "tenant", "namespace", "task", "look", "partition_count", "dead", "groups_link", "lease_seconds",
        "retry_limit", "retry_delay_ms", "max_size", "ttl_seconds", "priority", "delay_seconds", "window_seconds",
        "retention_enabled", "retention_seconds", "completed_retention_seconds", "max_wait_seconds", "encrypted",
        "dead_letter_queue", "dead_letter_after_retries", "created",
    )  # fmt: skip
    readonly_fields = fields
    actions = None

    def attach(self, rows: list[Any]) -> None:
        tenants, queues = {row.tenant_id for row in rows}, [row.pk for row in rows]
        mine = {"tenant_id__in": tenants, "queue_id__in": queues}
        partitions = _counted(Partition.objects.filter(**mine), "queue_id")
        dead = _counted(DeadMessage.objects.filter(**mine, ended_at=None), "queue_id")
        for row in rows:
            row.counted = partitions.get(row.pk, 0), dead.get(row.pk, 0)

    def counted(self, queue: Any) -> tuple[int, int]:
        if not hasattr(queue, "counted"):
            self.attach([queue])
        return queue.counted

    @admin.display(description="name")
    def label(self, queue: Queue) -> SafeString:
        return breakable(queue.name)

    @admin.display(description="created")
    def created(self, queue: Queue) -> SafeString | str:
        return exact(queue.created_at)

    @admin.display(description="partitions")
    def partition_count(self, queue: Queue) -> str:
        return f"{self.counted(queue)[0]:,}"

    @admin.display(description="dead letters")
    def dead(self, queue: Queue) -> SafeString | str:
        count = self.counted(queue)[1]
        return console_link(queue, "queue_dead_letters", f"{count:,}") if count else "0"

    @admin.display(description="groups")
    def groups_link(self, queue: Queue) -> SafeString:
        return link_to_list(Group, "its consumer groups", tenant=queue.tenant.slug, q=queue.name)

    @admin.display(description="console")
    def look(self, queue: Queue) -> SafeString:
        return console_link(queue)


@admin.register(Group)
class GroupAdmin(Attaching):
    section, place, purpose = WORK, 7, "Groups of readers of a queue, and how far they are behind."
    paginator = CappedPaginator
    list_display = ["label", "queue_link", "waiting", "consumed", "latest", "mode", "created", "tenant"]
    list_filter = [TenantFilter, "mode", since("created_at", "joined")]
    list_select_related = ["tenant", "queue__tenant"]
    search_fields = ["name", "queue__name"]
    sortable_by = ()
    fields = ("label", "queue_link", "tenant", "mode", "subscribed_from", "waiting", "consumed", "latest", "created")
    readonly_fields = fields
    actions = None

    def attach(self, rows: list[Any]) -> None:
        mine = Consumer.objects.filter(tenant_id__in={r.tenant_id for r in rows}, group_id__in=[r.pk for r in rows])
        behind = Greatest(models.F("partition__last_seq") - models.F("cursor"), 0)
        sums = (
            mine.order_by()
            .values("group_id")
            .annotate(waiting=models.Sum(behind), done=models.Sum("consumed"), latest=models.Max("consumed_at"))
        )
        found = {row["group_id"]: row for row in sums}
        for row in rows:
            row.sums = found.get(row.pk, {"waiting": 0, "done": 0, "latest": None})

    def sums(self, group: Any) -> dict[str, Any]:
        if not hasattr(group, "sums"):
            self.attach([group])
        return group.sums

    @admin.display(description="group")
    def label(self, group: Group) -> SafeString:
        return breakable(named(group.name))

    @admin.display(description="joined")
    def created(self, group: Group) -> SafeString | str:
        return exact(group.created_at)

    @admin.display(description="queue")
    def queue_link(self, group: Group) -> SafeString:
        return format_html(
            "{} ({})", link_to(Queue, group.queue_id, breakable(group.queue.name)), console_link(group.queue)
        )

    @admin.display(description="waiting")
    def waiting(self, group: Group) -> str:
        return f"{self.sums(group)['waiting']:,}"

    @admin.display(description="completed")
    def consumed(self, group: Group) -> str:
        return f"{self.sums(group)['done']:,}"

    @admin.display(description="last completed")
    def latest(self, group: Group) -> SafeString | str:
        return exact(self.sums(group)["latest"])
