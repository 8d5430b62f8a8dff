"""Fixtures of the tests of the message queue."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from queueing.broker import crypto, long_polls, traffic
from registry.models import Tenant
from registry.servers import embedded
from tests.bed.valkey import own_valkey
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_tenant
from tests.queueing.forked import Forker
from tests.queueing.mq import Mq, fresh_name
from tests.queueing.processes import Processes, environment


@pytest.fixture
async def mq(api: Api, tenant: Tenant) -> Mq:
    """A program of `tenant`."""
    return Mq(api, tenant.pk)


@pytest.fixture
async def foreign(server: str) -> AsyncIterator[Mq]:
    """A program of another tenant."""
    other = await in_thread(make_tenant)
    async with Api(server, await make_key(other)) as api:
        yield Mq(api, other.pk)


@pytest.fixture
def queue() -> str:
    """A queue's name; it has an empty namespace of its own."""
    return fresh_name()


@pytest.fixture(autouse=True)
async def _counters_written() -> AsyncIterator[None]:
    """What a test counted is written before its rows are removed, and nobody goes on listening."""
    yield
    await traffic.counts.close()
    await long_polls.loops.close()


@pytest.fixture
async def admin(server: str, tenant: Tenant) -> AsyncIterator[Mq]:
    """A program of `tenant` whose key may administer."""
    async with Api(server, await make_key(tenant, "admin")) as api:
        yield Mq(api, tenant.pk)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has a key, k1, to encrypt payloads with."""
    monkeypatch.setattr(crypto, "_cipher", crypto.Cipher({"k1": b"k1".ljust(32)}, setting=crypto.SETTING))


@pytest.fixture(scope="module")
def valkey() -> Iterator[embedded.Valkey]:
    """One of the tests' own: the others must not be emptied, filled or stopped."""
    with own_valkey() as server:
        yield server


@pytest.fixture(scope="module")
async def forker(valkey: embedded.Valkey) -> AsyncIterator[Forker]:
    async with Forker(environment(valkey)) as found:
        yield found


@pytest.fixture
async def start(forker: Forker, tmp_path: Path) -> AsyncIterator[Processes]:
    """Starts workers and waits until their drains are at work; ends all of them after the test."""
    found = Processes(forker, tmp_path / "workers.log")
    yield found
    await found.end()
