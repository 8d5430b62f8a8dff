"""Rate limits of keys: headers state what is left, and nothing is limited while Redis is unavailable."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from django.conf import settings
from limits import parse

from registry.data import rates, redis_health
from registry.data.loop import PerLoop
from registry.models import Tenant
from tests.conftest import Api, eventually, make_key


@pytest.fixture
async def limited(server: str, tenant: Tenant) -> AsyncIterator[Api]:
    """A program with a key for five calls a minute, and a limiter that has found its Redis."""
    await rates.count(parse("9/second"), "somebody else")
    async with Api(server, await make_key(tenant, rate_limit="5/minute")) as client:
        yield client


async def ask(api: Api, path: str = "/payments?limit=1") -> tuple[int, Mapping[str, str]]:
    async with api.get(path) as response:
        await response.read()
        return response.status, response.headers


async def test_every_response_has_the_remaining_calls(limited: Api):
    headers = [(await ask(limited))[1] for _ in range(3)]

    assert [one["RateLimit-Limit"] for one in headers] == ["5"] * 3
    assert [one["RateLimit-Remaining"] for one in headers] == ["4", "3", "2"]
    assert all(0 < int(one["RateLimit-Reset"]) <= 60 for one in headers)


async def test_a_call_over_the_limit_is_429_with_retry_after(limited: Api):
    for _ in range(5):
        assert (await ask(limited))[0] == 200

    async with limited.post("/payments", json={"amount": "1.00"}) as response:
        said = await response.json(content_type=None)

    assert (response.status, response.content_type) == (429, "application/problem+json")
    assert (said["status"], said["title"]) == (429, "The key's rate limit is used up")
    assert 0 < int(response.headers["Retry-After"]) <= 60
    assert response.headers["RateLimit-Remaining"] == "0"


async def test_of_fifty_concurrent_calls_five_pass(limited: Api):
    async def pay() -> int:
        async with limited.post("/payments", json={"amount": "1.00"}) as response:
            return response.status

    statuses = await asyncio.gather(*(pay() for _ in range(50)))

    assert (statuses.count(202), statuses.count(429)) == (5, 45)


async def test_after_the_time_in_retry_after_calls_pass_again(server: str, tenant):
    async with Api(server, await make_key(tenant, rate_limit="2/second")) as api:
        statuses = [(await ask(api))[0] for _ in range(4)]
        assert 429 in statuses

        async def passes() -> bool:
            return (await ask(api))[0] == 200

        await eventually(passes, within=3)


async def test_a_batch_counts_by_its_items(limited: Api):
    async def send(count: int) -> int:
        async with limited.post("/payments/batch", json={"items": [{"amount": "1.00"}] * count}) as response:
            return response.status

    assert await send(4) == 200
    assert await send(4) == 429


async def test_every_key_has_its_own_limit(limited: Api, server: str, tenant):
    for _ in range(6):
        await ask(limited)
    async with Api(server, await make_key(tenant, rate_limit="5/minute")) as other:
        assert (await ask(other))[0] == 200


async def test_a_key_without_a_limit_gets_no_limit_headers(api: Api):
    status, headers = await ask(api)

    assert status == 200
    assert not [name for name in headers if name.lower().startswith("ratelimit")]


async def test_a_refused_key_gets_no_limit_headers(server: str):
    async with Api(server, "rk_abc_def") as api:
        status, headers = await ask(api)

    assert status == 401
    assert not [name for name in headers if name.lower().startswith("ratelimit")]


@pytest.fixture
def redis_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the limiter look for Redis at a port of ours."""

    def move(port: int) -> None:
        monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{port}/0")
        monkeypatch.setattr(rates, "limiters", PerLoop(rates.open_limiter, close=rates.close_limiter))

    yield move
    redis_health.reset()


async def test_without_redis_calls_pass(limited: Api, redis_at):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: refused
        redis_at(nobody.getsockname()[1])

        statuses = [(await ask(limited))[0] for _ in range(8)]

    assert statuses == [200] * 8


async def test_a_redis_that_hangs_delays_a_call_only_a_little(limited: Api, redis_at, monkeypatch):
    monkeypatch.setattr(rates, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # takes connections and never answers
        redis_at(silent.getsockname()[1])
        started = time.monotonic()

        statuses = [(await ask(limited))[0] for _ in range(3)]

    assert statuses == [200] * 3
    assert time.monotonic() - started < 3 * (rates.TIMEOUT + 0.3)


# -- Limits that can never be met ---------------------------------------------------------------------------------


async def batch_of(api: Api, count: int) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    async with api.post("/payments/batch", json={"items": [{"amount": "1.00"}] * count}) as response:
        return response.status, await response.json(content_type=None), response.headers


async def test_a_batch_larger_than_the_limit_is_refused_permanently_and_consumes_nothing(limited: Api):
    for _ in range(3):
        status, said, headers = await batch_of(limited, 6)
        assert (status, "Retry-After" in headers) == (422, False)
        assert said["errors"][0]["field"] == "items"
        assert "5 per 1 minute" in said["detail"]

    assert (await batch_of(limited, 5))[0] == 200


async def test_a_batch_that_does_not_fit_now_consumes_nothing_and_fits_after_retry_after(server: str, tenant: Tenant):
    async with Api(server, await make_key(tenant, rate_limit="4/second")) as api:
        assert (await batch_of(api, 3))[0] == 200
        status, _, headers = await batch_of(api, 4)
        assert (status, headers["RateLimit-Remaining"], headers["Retry-After"]) == (429, "1", "1")
        await asyncio.sleep(int(headers["Retry-After"]))

        assert (await batch_of(api, 4))[0] == 200


async def test_a_batch_that_cannot_be_read_counts_as_one(limited: Api):
    async with limited.post("/payments/batch", json={"items": []}) as response:
        assert response.status == 422

    assert (await ask(limited))[1]["RateLimit-Remaining"] == "3"


async def test_a_key_is_not_created_with_a_limit_below_one(tenant: Tenant):
    with pytest.raises(ValueError, match="nothing pass"):
        await make_key(tenant, rate_limit="0/minute")
