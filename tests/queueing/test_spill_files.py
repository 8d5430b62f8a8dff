"""The files of the spill: whole records survive torn writes, flipped bits and full disks, and no other record is read."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueing.spill.file import FileEngine
from queueing.spill.frames import frame, frames, pack, unpack
from queueing.spill.record import STORED, Full, Record, StoreResult

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MARKER = bytes.fromhex("0011223344556677")
PROJECT = Path(__file__).parents[2]


def record(data: bytes, tenant: int = 7) -> Record:
    return Record("thing", tenant, NOW, data)


def written(*bodies: bytes) -> bytes:
    return b"".join(frame(MARKER, body) for body in bodies)


def whole(content: bytes) -> list[bytes]:
    return [part.body for part in frames(content, MARKER) if part.body is not None]


def damaged(content: bytes) -> list[bytes]:
    return [content[part.start : part.end] for part in frames(content, MARKER) if part.body is None]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FileEngine]:
    made = FileEngine(tmp_path, "thing", limit=10**7)
    yield made
    await made.close()


async def read(engine: FileEngine, limit: int = 500) -> list[bytes]:
    return [entry.record.data for entry in await engine.batch(limit) if entry.record]


async def left_by_the_dead(root: Path, kind: str = "thing") -> FileEngine:
    """An engine that has taken over the folders of dead processes."""
    heir = FileEngine(root, kind, limit=10**7)
    async for _ in heir.take_over():
        pass
    return heir


# -- The bytes -------------------------------------------------------------------------------------------------


@given(st.builds(Record, st.from_regex("[a-z]{1,20}", fullmatch=True), st.integers(-(2**63), 2**63 - 1),
                 st.datetimes(timezones=st.just(UTC)), st.binary()))  # fmt: skip
def test_a_record_is_read_as_it_was_appended(given_record: Record):
    assert unpack(pack(given_record)) == given_record


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_a_file_torn_at_any_byte_keeps_its_whole_records_and_the_rest_is_cut(bodies: list[bytes]):
    content = written(*bodies)
    ends = [len(written(*bodies[: n + 1])) for n in range(len(bodies))]

    for cut in range(len(content) + 1):
        torn = content[:cut]

        assert whole(torn) == [body for body, end in zip(bodies, ends, strict=True) if end <= cut]
        assert damaged(torn) == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=2, max_size=4), st.integers(0, 2**32))
def test_a_flipped_bit_damages_only_its_record_whose_bytes_are_kept(bodies: list[bytes], seed: int):
    content = written(*bodies)
    ends = [len(written(*bodies[: n + 1])) for n in range(len(bodies))]
    dice = Random(seed)

    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << dice.randrange(8)
        hit = next(n for n, end in enumerate(ends) if at < end)

        assert whole(bytes(flipped)) == bodies[:hit] + bodies[hit + 1 :]
        assert len(damaged(bytes(flipped))) == 1


def test_bytes_like_a_record_inside_a_damaged_one_are_not_read_as_a_record():
    """Its sender cannot know the marker of the file it goes to."""
    forged = frame(bytes(8), pack(record(b"forged", tenant=1)))
    content = bytearray(written(forged, b"next"))
    content[9] ^= 1

    assert whole(bytes(content)) == [b"next"]


def test_a_file_whose_size_was_written_before_its_content_is_not_damaged():
    content = written(b"one") + bytes(64)

    assert (whole(content), damaged(content)) == ([b"one"], [])


# -- The folder ---------------------------------------------------------------------------------------------


async def test_stored_records_leave_no_file(engine: FileEngine, tmp_path: Path):
    await engine.append([record(b"a"), record(b"b")])

    entries = await engine.batch(10)
    await engine.settle(entries, [STORED, STORED])
    await engine.close()

    assert [entry.record.data for entry in entries] == [b"a", b"b"]
    assert not list(tmp_path.rglob("*"))


async def test_segments_are_closed_by_size_and_drained_in_order(tmp_path: Path):
    engine = FileEngine(tmp_path, "thing", limit=10**7, segment_bytes=300)
    for n in range(40):
        await engine.append([record(b"%d" % n * 20)])
    files = len(list(tmp_path.glob("thing-*/0*")))

    found = []
    while entries := await engine.batch(3):
        found += [entry.record.data for entry in entries]
        await engine.settle(entries, [STORED] * len(entries))
    await engine.close()

    assert files > 5
    assert found == [b"%d" % n * 20 for n in range(40)]
    assert (engine.bytes, list(tmp_path.glob("*"))) == (0, [])


async def test_records_stored_before_a_kill_are_not_stored_again(tmp_path: Path):
    engine = FileEngine(tmp_path, "thing", limit=10**7)
    await engine.append([record(b"%d" % n) for n in range(10)])
    entries = await engine.batch(4)
    await engine.settle(entries, [STORED] * 4)
    await engine.close()  # as much of it as the kernel does at a kill -9

    heir = await left_by_the_dead(tmp_path)

    assert await read(heir) == [b"%d" % n for n in range(4, 10)]
    await heir.close()


async def test_damaged_bytes_are_quarantined_and_other_records_are_stored(engine: FileEngine, tmp_path: Path):
    await engine.append([record(b"one"), record(b"two"), record(b"three")])
    [path] = tmp_path.glob("thing-*/0*")
    content = path.read_bytes()
    at = content.index(b"two")
    path.write_bytes(content[:at] + b"TWO" + content[at + 3 :])

    entries = await engine.batch(10)
    await engine.settle(entries, [StoreResult(entry.fault) for entry in entries])

    assert [entry.record and entry.record.data for entry in entries] == [b"one", None, b"three"]
    [kept] = await engine.quarantined()
    assert kept.record is None
    assert b"TWO" in kept.raw
    assert "checksum" in kept.reason


async def test_reading_the_age_does_not_block_the_loop_while_another_thread_syncs(engine: FileEngine):
    await engine.append([record(b"waits")])
    held, let_go = threading.Event(), threading.Event()

    def sync() -> None:
        with engine._lock:
            held.set()
            let_go.wait(2)  # seconds, where the loop stands still and cannot say it

    syncing = asyncio.create_task(asyncio.to_thread(sync))
    await asyncio.to_thread(held.wait)
    asking = asyncio.create_task(engine.oldest())
    await asyncio.sleep(0)
    answered_meanwhile = asking.done()
    let_go.set()
    await syncing

    assert (answered_meanwhile, await asking) == (False, NOW)


async def test_a_record_quarantined_twice_is_kept_once(engine: FileEngine):
    for _ in range(2):
        await engine.append([record(b"bad")])
        entries = await engine.batch(10)
        await engine.settle(entries, [StoreResult("no")])

    assert [(kept.record, kept.reason) for kept in await engine.quarantined()] == [(record(b"bad"), "no")]


async def test_a_living_process_keeps_its_folder(engine: FileEngine, tmp_path: Path):
    await engine.append([record(b"mine")])

    heir = await left_by_the_dead(tmp_path)

    assert await heir.batch(10) == []
    assert await read(engine) == [b"mine"]


async def test_only_one_process_takes_over_a_folder_and_only_of_its_own_kind(tmp_path: Path):
    dead = FileEngine(tmp_path, "thing", limit=10**7)
    await dead.append([record(b"left")])
    await dead.close()

    heirs = await asyncio.gather(*(left_by_the_dead(tmp_path) for _ in range(5)), left_by_the_dead(tmp_path, "other"))

    assert [len(await heir.batch(10)) for heir in heirs].count(1) == 1
    assert await heirs[-1].batch(10) == []
    for heir in heirs:
        await heir.close()


DIES = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from queueing.spill.file import FileEngine
from queueing.spill.record import Record

async def main():
    engine = FileEngine(Path(sys.argv[1]), "thing", limit=10**8)
    n = 0
    while True:
        await engine.append([Record("thing", 7, datetime.now(UTC), b"%d" % (n + i)) for i in range(3)])
        n += 3
        print(n, flush=True)

asyncio.run(main())
"""


async def test_every_acknowledged_append_survives_a_kill(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", DIES, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout
    said = [int(process.stdout.readline()) for _ in range(50)]

    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    heir = await left_by_the_dead(tmp_path)
    found = [int(data) for data in await read(heir, 10**6)]

    assert found == list(range(len(found)))
    assert len(found) >= said[-1]
    await heir.close()


# -- A disk that does not take it --------------------------------------------------------------------------------

FILLS = """
import asyncio, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from queueing.spill.file import FileEngine
from queueing.spill.record import Full, Record

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    engine = FileEngine(Path(sys.argv[1]), "thing", limit=10**8)
    kept = 0
    while True:
        try:
            await engine.append([Record("thing", 7, datetime.now(UTC), b"%04d" % (kept + i) + bytes(200)) for i in range(3)])
        except Full as error:
            print(kept, error.status, error.headers["Retry-After"], flush=True)
            break
        kept += 3
    await engine.append([Record("thing", 7, datetime.now(UTC), b"%04d" % kept)])  # a small one still fits

asyncio.run(main())
"""


async def test_a_full_disk_returns_503_and_leaves_no_torn_record(tmp_path: Path):
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FILLS, str(tmp_path), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, complaint = await asyncio.wait_for(done.communicate(), 30)
    kept, status, retry_after = said.decode().split()

    heir = await left_by_the_dead(tmp_path)
    entries = await heir.batch(1000)

    assert (done.returncode, status, retry_after) == (0, "503", "1"), complaint
    assert [int(entry.record.data[:4]) for entry in entries if entry.record] == list(range(int(kept) + 1))
    assert [entry for entry in entries if entry.record is None] == []
    assert int(kept) > 10
    await heir.close()


async def test_a_record_that_could_not_be_synced_is_refused_and_not_kept(
    engine: FileEngine, monkeypatch: pytest.MonkeyPatch
):
    await engine.append([record(b"kept")])

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Full, match="Input/output error"):
            await engine.append([record(b"refused")])

    assert await read(engine) == [b"kept"]


async def test_a_spill_at_its_limit_refuses_records_and_accepts_them_again_once_it_is_drained(tmp_path: Path):
    engine = FileEngine(tmp_path, "thing", limit=2000)
    await engine.append([record(bytes(1500))])

    with pytest.raises(Full, match="at most 2000"):
        await engine.append([record(bytes(1500))])
    entries = await engine.batch(10)
    await engine.settle(entries, [STORED])

    await engine.append([record(bytes(1500))])
    assert len(await engine.batch(10)) == 1
    await engine.close()


async def test_after_a_segment_that_cannot_be_truncated_the_next_append_starts_a_new_one(
    engine: FileEngine, monkeypatch: pytest.MonkeyPatch
):
    await engine.append([record(b"kept")])
    real = os.pwrite

    def half(handle: int, content: bytes, at: int) -> int:
        real(handle, content[: len(content) // 2], at)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Full):
            await engine.append([record(b"refused")])
    await engine.append([record(b"after")])

    found = []
    while entries := await engine.batch(10):
        found += [entry.record and entry.record.data for entry in entries]
        await engine.settle(entries, [STORED] * len(entries))
    assert found == [b"kept", b"after"]
