"""Gauges of hosts, the alert about silent ones, and their item on the operators' home."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from prometheus_client.core import GaugeMetricFamily

from registry.edge import status
from registry.models import HOST_SILENT_AFTER, Host
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Item, Severity, counted, source
from registry.operators.cells import address_of_list, ago
from registry.servers.plan import ROLES


async def read() -> list[tuple[Host, timedelta]]:
    """All hosts, and how long ago each reported, by PostgreSQL's clock."""
    return [(one, one.now - one.heartbeat_at) async for one in Host.async_objects.annotate(now=Now()).order_by("name")]


async def _gauges() -> list[GaugeMetricFamily]:
    found = await read()
    living = [host for host, age in found if age < HOST_SILENT_AFTER]
    does = Counter(part for host in living for part in ROLES.get(host.role, ()))
    hosts = GaugeMetricFamily("registry_hosts", "Hosts that report, by what they do", labels=["does"])
    for part in sorted(ROLES["all"]):
        hosts.add_metric([part], does[part])
    silent = GaugeMetricFamily("registry_hosts_silent", "Hosts that stopped reporting", value=len(found) - len(living))
    names = ["host", "role", "version"]
    info = GaugeMetricFamily("registry_host_info", "1, with what answers: join it on instance", labels=names)
    info.add_metric([settings.REGISTRY_HOST, settings.REGISTRY_ROLE, settings.REGISTRY_VERSION], 1)
    starts = GaugeMetricFamily(
        "registry_host_process_starts", "Starts of a process of this host since `up`", labels=["host", "process"]
    )
    running = GaugeMetricFamily(
        "registry_host_process_running", "1 where a process of this host runs", labels=["host", "process"]
    )
    for host, _ in found:
        if host.name == settings.REGISTRY_HOST:
            for one in host.processes:
                starts.add_metric([host.name, one["name"]], one["starts"])
                running.add_metric([host.name, one["name"]], one["pid"] > 0)
    return [hosts, silent, info, starts, running]


status.gauges.append(_gauges)

register(
    AlertRule(
        name="hosts",
        expression="max(registry_hosts_silent) > 0",
        for_=20,
        severity=Severity.WARNING,
        scope="service",
        sentence="A host stopped reporting and was not stopped: it was killed, cut off, or has no power.",
    )
)


@source("hosts")
async def hosts(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    found = await read()
    silent = [(host, age) for host, age in found if age >= HOST_SILENT_AFTER]
    living = [host for host, age in found if age < HOST_SILENT_AFTER]
    if silent:
        return [_silent(host, age, living) for host, age in silent]
    if not found:
        return []
    said = ", ".join(f"{host} ({host.role})" for host in living)
    items = [Item(severity=Severity.WELL, sentence=f"{counted(len(living), 'host')}: {said}.", count=len(living))]
    if len(versions := sorted({host.version for host in living})) > 1:
        said = f"Hosts run {len(versions)} versions: {', '.join(versions)}. Upgrade the others."
        items.append(Item(severity=Severity.NOTICE, sentence=said, action="See the hosts", admin=address_of_list(Host)))
    return items


def _silent(host: Host, age: timedelta, living: Sequence[Host]) -> Item:
    done = {part for other in living for part in ROLES.get(other.role, ())}
    missing = sorted(ROLES.get(host.role, frozenset()) - done)
    means = f"No other host does its part: {', '.join(missing)}." if missing else "The others do its part."
    said = f"Host {host} stopped reporting {ago(age.total_seconds())} ago. {means}"
    return Item(
        severity=Severity.CRITICAL if missing else Severity.WARNING,
        sentence=said,
        since=host.heartbeat_at,
        action="See the hosts",
        admin=address_of_list(Host),
    )
