"""Everything that an older key encrypted is encrypted anew with the current one, in slices; who is stopped begins again.

What is done bears the current key and is not found a second time, so nothing has to be remembered between runs.
"""

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

type Place = tuple[int, str, str, str]


class Rotated(msgspec.Struct):
    """What a rotation has come to."""

    changed: int = 0
    unreadable: int = 0  # left as they are: their key is not here, or they were changed at rest
    seen: int = 0  # partitions that are done, of `total`
    total: int = 0


def _nothing(_: Rotated) -> None:
    pass


async def rotate(*, progress: Callable[[Rotated], None] = _nothing) -> Rotated:
    """Encrypt anew what older keys encrypted. Raises crypto.NoKey where there is no current one."""
    key = crypto.current_key()
    done = Rotated(total=(await database.fetch(SQL["how_many"]))[0][0])
    after = 0
    while found := await database.fetch(SQL["partitions"], {"after": after, "limit": SLICE}):
        for tenant_id, partition, name, queue in found:
            await _messages(done, key, tenant_id, partition, (queue, name), progress)
            done.seen += 1
            progress(done)
        after = found[-1][1]
    for (tenant_id,) in await database.fetch(SQL["tenants"]):
        await _letters(done, key, tenant_id, progress)
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


async def _letters(done: Rotated, key: str, tenant_id: int, progress: Callable[[Rotated], None]) -> None:
    where: dict[str, Any] = {"tenant": tenant_id, "key": key, "after": 0, "limit": SLICE}
    while rows := await database.fetch(SQL["letters"], where):
        places = [(tenant_id, queue, partition, name) for _, _, queue, partition, name, _, _ in rows]
        await _change(done, "change_letters", where, [(row[1], row[5], row[6]) for row in rows], places)
        where["after"] = rows[-1][1]
        progress(done)


async def _change(
    done: Rotated,
    statement: str,
    where: dict[str, Any],
    rows: Sequence[tuple[int, bytes, str]],
    places: Sequence[Place],
) -> None:
    """Write one slice. `rows`: number, payload, key."""
    key = where["key"]
    changes = []
    for (number, payload, old), place in zip(rows, places, strict=True):
        try:
            clear = crypto.decrypt(payload, key_id=old, place=place)
        except crypto.Undecipherable as error:
            done.unreadable += 1
            log.error("left as it is", extra={"transaction_id": place[3], "queue": place[1], "reason": error.detail})
            continue
        changes.append((number, crypto.encrypt(clear, key_id=key, place=place), old))
    numbers, payloads, olds = [[change[n] for change in changes] for n in range(3)]
    params = {**where, "numbers": numbers, "payloads": payloads, "olds": olds}
    done.changed += len(await database.fetch(SQL[statement], params))
