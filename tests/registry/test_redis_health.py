"""Health of Redis: each error has a name in /health, in a metric and once in the log; no request waits for it."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from django.conf import settings
from limits import RateLimitItemPerMinute, parse

from payments.billing import limits
from registry.data import channels, rates, redis_health
from registry.data.loop import PerLoop
from registry.servers import embedded
from registry.telemetry import metrics
from registry.tenants.limits import count_requests
from tests.bed.valkey import TROUBLES, Troubled, own_valkey
from tests.conftest import Api, eventually


@pytest.fixture(scope="module")
def valkey() -> Iterator[embedded.Valkey]:
    with own_valkey() as server:
        yield server


@pytest.fixture
def trouble(valkey: embedded.Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Troubled]:
    """Redis is another server, which a caller waits a quarter of the product's time for."""
    for name in ("REDIS_URL", "LIVE_REDIS_URL", "RQ_REDIS_URL"):
        monkeypatch.setattr(settings, name, valkey.url)
    monkeypatch.setattr(rates, "limiters", PerLoop(rates.open_limiter, close=rates.close_limiter))
    monkeypatch.setattr(redis_health, "PROBE_LIMIT", redis_health.PROBE_LIMIT / 4)
    monkeypatch.setattr(rates, "TIMEOUT", rates.TIMEOUT / 4)
    redis_health.reset()
    with Troubled(valkey) as found:
        yield found
    redis_health.reset()


@pytest.fixture(params=list(TROUBLES))
def named(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_a_probe_write_detects_trouble_and_its_end(trouble: Troubled, named: str):
    # A client too many may have its connection closed before it reads why.
    names = {named, *(("unreachable",) if named == "too_many_clients" else ())}
    before = await redis_health.probe(trouble.url), await asyncio.to_thread(redis_health.probe_sync, trouble.url)

    with trouble.of(named):
        said = await redis_health.probe(trouble.url), await asyncio.to_thread(redis_health.probe_sync, trouble.url)

    after = await redis_health.probe(trouble.url), await asyncio.to_thread(redis_health.probe_sync, trouble.url)
    assert before == after == ("", "")
    assert set(said) <= names


async def test_redis_that_refuses_connections_cannot_be_reached():
    assert await redis_health.probe("redis://127.0.0.1:1/0") == "unreachable"
    assert await asyncio.to_thread(redis_health.probe_sync, "redis://127.0.0.1:1/0") == "unreachable"


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("BUSY Redis is busy running a script.", "busy"),
        ("MISCONF Errors writing to the AOF file: No space left on device", "cannot_save"),
        ("NOREPLICAS Not enough good replicas to write.", "too_few_replicas"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "password_refused"),
        ("NOAUTH Authentication required.", "password_refused"),
        ("NOPERM User default has no permissions to run the 'set' command", "not_permitted"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: abc", "full"),
        ("READONLY You can't write against a read only replica.", "read_only"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "refused"),
        ("ERR max number of clients reached", "too_many_clients"),
        ("ERR something new", "refused"),
    ],
)
def test_rare_errors_have_names_too(answer: str, name: str):
    from redis._parsers import _RESP2Parser

    assert redis_health.trouble_of(_RESP2Parser.parse_error(answer)) == name
    assert name in redis_health.SENTENCES


@pytest.mark.parametrize("name", ["full", "read_only", "no_answer"])
async def test_health_and_a_metric_name_the_trouble(api: Api, trouble: Troubled, name: str):
    with trouble.of(name):
        async with api.get("/health") as response:
            status, body = response.status, await response.json()
        async with api.get("/metrics") as response:
            metrics = await response.text()

    assert status == 503
    assert body["checks"]["redis"] == {"status": "failing", "detail": f"{redis_health.SENTENCES[name]} (limits)"}
    assert 'registry_redis_takes_writes{use="limits"} 0.0' in metrics


async def test_health_looks_at_each_server_in_use(api: Api, trouble: Troubled, monkeypatch):
    monkeypatch.setattr(settings, "RQ_REDIS_URL", "redis://:hush@127.0.0.1:1/0")

    async with api.get("/health") as response:
        body = await response.json()
    async with api.get("/metrics") as response:
        metrics = await response.text()

    assert body["checks"]["redis"]["detail"] == "Redis cannot be reached (jobs)"
    assert 'registry_redis_takes_writes{use="limits"} 1.0' in metrics
    assert 'registry_redis_takes_writes{use="jobs"} 0.0' in metrics


LIMIT = parse("2/minute")


async def test_without_redis_no_call_is_limited_or_delayed_and_the_log_says_it_once(
    trouble: Troubled, named: str, caplog
):
    caplog.set_level(logging.WARNING, "registry")
    with trouble.of(named):
        started = time.monotonic()
        for _ in range(20):
            assert await count_requests(LIMIT, "k") == {}
            await limits.count_by("somebody", RateLimitItemPerMinute(1), "try")
        took = time.monotonic() - started

    assert took < rates.TIMEOUT + 0.5
    assert len([line for line in caplog.messages if "Redis" in line]) == 1


async def test_limits_apply_again_soon_after_the_trouble(trouble: Troubled, monkeypatch):
    with trouble.of("full"):
        assert await count_requests(LIMIT, "k") == {}
    monkeypatch.setattr(redis_health, "PAUSE", 0)

    assert (await count_requests(LIMIT, "k"))["RateLimit-Remaining"] == "1"


async def test_a_flapping_state_is_logged_once_in_ten_seconds_and_its_last_value_is_logged(caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(redis_health.time, "monotonic", lambda: now[0])
    redis_health.reset()
    for _ in range(50):
        now[0] += 0.1
        redis_health.record_error("limits", ConnectionError())
        redis_health.record_success("limits")
    now[0] += 10
    redis_health.record_success("limits")
    redis_health.record_success("limits")
    redis_health.reset()

    assert [line for line in caplog.messages if "Redis" in line] == [
        "Redis cannot be reached; going on without it",
        "Redis serves again",
    ]


async def test_a_group_that_cannot_be_joined_is_tried_again_and_leaves_nothing_behind(
    trouble: Troubled, monkeypatch, caplog
):
    """Each failed try left a channel, which gathered all messages of the group from then on, and one line a second."""
    layer = channels.OwnLayer(hosts=[trouble.url])
    monkeypatch.setattr(channels, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(channels, "RETRY", 0.01)
    heard = asyncio.Queue[bytes]()
    failures = metrics.REDIS_ERRORS.labels("live", "password_refused")._value
    before = failures.get()
    with trouble.of("password_refused"):
        task = asyncio.create_task(channels.listen("live", heard.put_nowait))
        await eventually(lambda: failures.get() >= before + 5)
        kept = len(layer.channels)
    try:
        async with asyncio.timeout(10):
            while heard.empty():
                with suppress(redis.RedisError):
                    await channels.send("live", b"x")
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await layer.flush()

    assert kept <= 1
    assert len([line for line in caplog.messages if "Redis" in line]) <= 2
