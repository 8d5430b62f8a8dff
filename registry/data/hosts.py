"""Connections to a PostgreSQL of several hosts that fails over: to the primary, found within a second though other hosts hang.

libpq tries hosts one after the other, and a host that accepts connections without responding costs the whole time limit each time.
Here the primary that was found last is tried first, and the others beside it if it is slow. A primary that was replaced and
comes back still takes writes: it is recognised by its timeline, which is older than that of the last one, and is not used.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor

from registry.data.statements import statements

log = logging.getLogger(__name__)

HEAD_START = 0.1  # seconds for the last primary before the other hosts are asked too; with them it fits into a probe
SETTLE = 0.2  # seconds in which a first connection waits for a primary of a later timeline
SQL = statements(Path(__file__).parent / "sql" / "hosts.sql")
PRIMARY = ("read-write", "primary")  # target_session_attrs by which only a primary is wanted

type Parameters = Mapping[str, Any]


class Deposed(psycopg.OperationalError):
    """This server was the primary before another one was promoted."""


class Cluster:
    """What this process knows of the hosts of one address: which was the primary last, and on which timeline."""

    def __init__(self) -> None:
        self.primary: tuple[str, str] | None = None
        self.timeline = 0

    def accept(self, host: tuple[str, str], timeline: int) -> None:
        """Remember the primary. Raises Deposed for one that was replaced."""
        if timeline < self.timeline:
            raise Deposed("this server was the primary before another one was promoted")
        if self.primary and host != self.primary:
            log.warning("PostgreSQL failed over: another host is the primary", extra={"timeline": timeline})
        self.primary, self.timeline = host, timeline


_clusters: dict[str, Cluster] = {}


def cluster_of(parameters: Parameters) -> Cluster:
    return _clusters.setdefault(
        f"{parameters.get('host')} {parameters.get('port')} {parameters.get('dbname')}", Cluster()
    )


def forget() -> None:
    """Forget what is known of all clusters. For tests."""
    _clusters.clear()


def hosts_of(parameters: Parameters) -> list[dict[str, Any]]:
    """The parameters of each host, the last primary first."""
    names, ports = str(parameters.get("host", "")).split(","), str(parameters.get("port", "")).split(",")
    ports = ports if len(ports) == len(names) else ports * len(names)
    addresses = str(parameters.get("hostaddr", "")).split(",")
    found = [{**parameters, "host": name, "port": port} for name, port in zip(names, ports, strict=True)]
    if len(addresses) == len(found):
        found = [one | {"hostaddr": address} for one, address in zip(found, addresses, strict=True)]
    last = cluster_of(parameters).primary
    return sorted(found, key=lambda one: _place(one) != last)


def wants_primary(parameters: Parameters) -> bool:
    """Whether a connection has to find the primary among several hosts."""
    return "," in str(parameters.get("host", "")) and parameters.get("target_session_attrs") in PRIMARY


def _place(parameters: Parameters) -> tuple[str, str]:
    return str(parameters["host"]), str(parameters["port"])


# -- For the event loop -------------------------------------------------------------------------------------------


class PrimaryConnection(AsyncConnection[Any]):
    """psycopg's connection; `connect` finds the primary among several hosts."""

    cluster: Cluster | None = None  # None where any host will do
    timeline = 0

    @property
    def is_deposed(self) -> bool:
        """Whether another host has become the primary since this connection was opened."""
        return self.cluster is not None and self.timeline < self.cluster.timeline

    @classmethod
    async def connect(cls, conninfo: str = "", **parameters: Any) -> Self:  # type: ignore[override]
        if not wants_primary(parameters):
            return await super().connect(conninfo, **parameters)
        tasks: list[asyncio.Task[Self]] = []
        winner: Self | None = None
        try:
            winner = await cls._race(hosts_of(parameters), cluster_of(parameters), tasks)
            return winner
        finally:
            await _end(tasks, winner)

    @classmethod
    async def _race(cls, hosts: list[dict[str, Any]], cluster: Cluster, tasks: list[asyncio.Task[Self]]) -> Self:
        """The first connection to a primary; of a cluster that is not known yet, the one of the latest timeline."""
        known = cluster.primary
        if known:
            tasks.append(asyncio.create_task(cls._to_host(hosts.pop(0), cluster)))
            await asyncio.wait(tasks, timeout=HEAD_START)
            if found := _best(tasks):
                return found
        tasks += [asyncio.create_task(cls._to_host(host, cluster)) for host in hosts]
        pending = {task for task in tasks if not task.done()}
        while pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if found := _best(tasks):
                if pending and not known:
                    await asyncio.wait(pending, timeout=SETTLE)
                return _best(tasks) or found
        raise _worst([error for task in tasks if (error := task.exception())])

    @classmethod
    async def _to_host(cls, parameters: dict[str, Any], cluster: Cluster) -> Self:
        connection = await super().connect(**parameters)
        try:
            cursor = await AsyncCursor(connection).execute(SQL["timeline"])
            connection.cluster, connection.timeline = cluster, _timeline(await cursor.fetchone())
            cluster.accept(_place(parameters), connection.timeline)
        except BaseException:
            await connection.close()
            raise
        return connection


def _best[C: PrimaryConnection](tasks: list[asyncio.Task[C]]) -> C | None:
    """The connection of the latest timeline among those that are open."""
    open_ones = [task.result() for task in tasks if task.done() and not task.cancelled() and not task.exception()]
    return max(open_ones, key=lambda one: one.timeline, default=None)


async def _end[C: PrimaryConnection](tasks: list[asyncio.Task[C]], winner: C | None) -> None:
    """Give up the other attempts, and close what they opened."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, PrimaryConnection) and found is not winner:
            await found.close()


def _timeline(row: Any) -> int:
    return int(row[0])


def _worst(errors: Sequence[BaseException]) -> BaseException:
    """The error that says most: a host that was reached rather than one that was not."""
    said = [error for error in errors if "read-only" in str(error) or "standby" in str(error)]
    return (said or errors)[-1]


# -- For threads and commands ------------------------------------------------------------------------------------------


def first_primary[C: Connection](parameters: Parameters, connect: Callable[[dict[str, Any]], C]) -> C:
    """The same for a connection that blocks: one host after the other. All are asked while the cluster is not known."""
    cluster, best, errors = cluster_of(parameters), None, []
    known = cluster.primary
    for host in hosts_of(parameters):
        try:
            connection = connect(host)
            timeline = _timeline(Cursor(connection).execute(SQL["timeline"]).fetchone())
            connection.rollback()  # it begins without a transaction
            cluster.accept(_place(host), timeline)
        except psycopg.OperationalError as error:
            errors.append(error)
            continue
        if best:
            best.close()
        best = connection
        if known:
            break
    if best is None:
        raise _worst(errors)
    return best
