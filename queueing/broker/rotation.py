"""Key rotation: encrypt a tenant's payloads of older keys again with the current key, in slices. It runs as a job.

Rotated rows carry the current key and are not selected again, so an interrupted run can simply be repeated.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from queueing.broker import crypto
from registry.data import database

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "rotation.sql")

SLICE = 500  # payloads per transaction: some may be megabytes

type PayloadPlace = tuple[int, str, str, str]


class Rotated(msgspec.Struct):
    """Progress of a rotation."""

    changed: int = 0
    unreadable: int = 0  # left as they are: their key is not configured, or they were changed at rest
    seen: int = 0  # partitions finished, of `total`
    total: int = 0


def _nothing(_: Rotated) -> None:
    pass


async def tenants() -> list[int]:
    """Tenants that have payloads."""
    return [id for (id,) in await database.fetch(SQL["tenants"])]


async def rotate(tenant_id: int, *, progress: Callable[[Rotated], None] = _nothing) -> Rotated:
    """Encrypt a tenant's payloads of older keys with the current one. Raises crypto.NoKey where there is none."""
    key, tenant = crypto.current_key(), {"tenant": tenant_id}
    done = Rotated(total=(await database.fetch(SQL["how_many"], tenant))[0][0])
    after = 0
    while found := await database.fetch(SQL["partitions"], {**tenant, "after": after, "limit": SLICE}):
        for partition, name, queue in found:
            await _messages(done, key, tenant_id, partition, (queue, name), progress)
            done.seen += 1
            progress(done)
        after = found[-1][0]
    await _dead_letters(done, key, tenant_id, progress)
    return done


async def _messages(
    done: Rotated, key: str, tenant_id: int, partition: int, names: tuple[str, str], progress: Callable[[Rotated], None]
) -> None:
    where: dict[str, Any] = {"tenant": tenant_id, "partition": partition, "key": key, "after": 0, "limit": SLICE}
    while rows := await database.fetch(SQL["messages"], where):
        places = [(tenant_id, *names, transaction_id) for _, transaction_id, _, _ in rows]
        await _change(done, "change_messages", where, [(row[0], row[2], row[3]) for row in rows], places)
        where["after"] = rows[-1][0]
        progress(done)


async def _dead_letters(done: Rotated, key: str, tenant_id: int, progress: Callable[[Rotated], None]) -> None:
    where: dict[str, Any] = {"tenant": tenant_id, "key": key, "after": 0, "limit": SLICE}
    while rows := await database.fetch(SQL["dead_letters"], where):
        places = [(tenant_id, queue, partition, name) for _, _, queue, partition, name, _, _ in rows]
        await _change(done, "change_dead_letters", where, [(row[1], row[5], row[6]) for row in rows], places)
        where["after"] = rows[-1][1]
        progress(done)


async def _change(
    done: Rotated,
    statement: str,
    where: dict[str, Any],
    rows: Sequence[tuple[int, bytes, str]],
    places: Sequence[PayloadPlace],
) -> None:
    """Write one slice. `rows`: number, payload, key."""
    key = where["key"]
    changes = []
    for (number, payload, old), place in zip(rows, places, strict=True):
        await asyncio.sleep(0)  # payloads may be large, and the loop has other jobs
        try:
            clear = crypto.decrypt(payload, key_id=old, place=place)
        except crypto.Undecipherable as error:
            done.unreadable += 1
            log.error(
                "payload not rotated", extra={"transaction_id": place[3], "queue": place[1], "reason": error.detail}
            )
            continue
        changes.append((number, crypto.encrypt(clear, key_id=key, place=place), old))
    numbers, payloads, olds = [[change[n] for change in changes] for n in range(3)]
    params = {**where, "numbers": numbers, "payloads": payloads, "olds": olds}
    done.changed += len(await database.fetch(SQL[statement], params))
