"""The cache: one load for concurrent callers, the age of values, and values served while the database is unavailable."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from registry.data import db_breaker
from registry.data.cache import Bounded, Cached
from registry.data.loop import end_loop
from registry.errors import Unavailable
from tests.conftest import eventually

LONG = 60.0  # seconds that no test takes


class Shop:
    """Answers `<key> <n>`, n counting the questions; each waits for the gate, and fails as long as there are `errors`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: Any) -> str:
        self.asked.append(key)
        answer = f"{key} {len(self.asked)}"
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return answer


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the database be known to be away from now on."""
    return lambda: monkeypatch.setattr(db_breaker.current(), "away", True)


def kept(shop: Shop, seconds: float = LONG, **options: Any) -> Cached[Any, str]:
    return Cached(shop.load, fresh=seconds, stale=seconds, **options)


# -- One load for all ----------------------------------------------------------------------------------------


async def test_a_cancelled_caller_does_not_cancel_the_load_for_others(shop):
    shop.gate.clear()
    cached = kept(shop)
    first, second = (asyncio.create_task(cached.get("a")) for _ in range(2))
    await eventually(lambda: shop.asked)
    first.cancel()
    shop.gate.set()

    assert await second == "a 1"
    assert shop.asked == ["a"]


async def test_an_error_is_raised_in_waiting_callers_and_is_not_cached(shop):
    shop.errors = [RuntimeError("broken")]
    cached = kept(shop)

    first = await asyncio.gather(*(cached.get("a") for _ in range(3)), return_exceptions=True)

    assert [str(error) for error in first] == ["broken"] * 3
    assert await cached.get("a") == "a 2"


async def test_each_loop_loads_for_itself(shop):
    cached = kept(shop)

    async def elsewhere() -> str:
        try:
            return await cached.get("a")
        finally:
            await end_loop()

    assert (await cached.get("a"), await asyncio.to_thread(asyncio.run, elsewhere())) == ("a 1", "a 2")


# -- How old it may be -----------------------------------------------------------------------------------------


async def test_a_value_that_is_no_longer_fresh_is_served_while_one_load_renews_it(shop):
    cached = Cached(shop.load, fresh=0.0, stale=LONG)
    await cached.get("a")
    shop.gate.clear()

    served = [await cached.get("a") for _ in range(3)]
    await eventually(lambda: len(shop.asked) == 2)
    shop.gate.set()
    await eventually(lambda: cached.peek("a") == "a 2")

    assert served == ["a 1"] * 3


async def test_callers_wait_for_a_load_once_the_value_is_stale(shop):
    cached = kept(shop, 0.0)

    assert [await cached.get("a"), await cached.get("a")] == ["a 1", "a 2"]


async def test_the_age_of_a_value_counts_from_the_beginning_of_its_load(shop):
    cached = kept(shop, 0.3)
    shop.gate.clear()
    first = asyncio.create_task(cached.get("a"))
    await asyncio.sleep(0.31)
    shop.gate.set()

    assert (await first, await cached.get("a")) == ("a 1", "a 2")


async def test_a_load_older_than_the_callers_knowledge_is_neither_served_nor_stored(shop):
    cached = kept(shop)
    shop.gate.clear()
    older = asyncio.create_task(cached.get("a"))
    await eventually(lambda: len(shop.asked) == 1)
    newer = asyncio.create_task(cached.get("a", since=time.monotonic()))
    await eventually(lambda: len(shop.asked) == 2)
    shop.gate.set()

    assert (await older, await newer, cached.peek("a")) == ("a 1", "a 2", "a 2")


async def test_a_value_forgotten_during_its_load_is_loaded_again(shop):
    cached = kept(shop)
    shop.gate.clear()
    before = asyncio.create_task(cached.get("a"))
    await eventually(lambda: shop.asked)
    cached.forget("a")
    after = asyncio.create_task(cached.get("a"))
    await eventually(lambda: len(shop.asked) == 2)
    shop.gate.set()

    assert (await before, await after, await cached.get("a")) == ("a 1", "a 2", "a 2")


# -- While the database is away ------------------------------------------------------------------------------------


async def test_the_last_value_is_served_during_an_outage_only_where_allowed(shop, away):
    lenient, strict = kept(shop, 0.0, while_away=True), kept(shop, 0.0)
    known = [await lenient.get("a"), await strict.get("a")]
    away()

    assert await lenient.get("a") == known[0]
    with pytest.raises(Unavailable):
        await strict.get("a")
    assert strict.peek("a") == known[1]
    with pytest.raises(Unavailable):
        await lenient.get("b")


async def test_a_caller_with_a_default_does_not_load_again_at_once(shop):
    shop.errors = [Unavailable()]
    cached = kept(shop, patient=False)
    for key in ("a", "b"):
        with pytest.raises(Unavailable):
            await cached.get(key)

    assert shop.asked == ["a"]


# -- What it keeps -------------------------------------------------------------------------------------------------


async def test_unknown_keys_evict_others_and_memory_does_not_grow(shop):
    cached = kept(shop, kept=3)
    for key in "abcd":
        await cached.get(key)

    assert [cached.peek(key) for key in "abcd"] == [None, "b 2", "c 3", "d 4"]


async def test_unknown_keys_evict_nothing_during_an_outage(shop, away):
    cached = Cached(shop.load, fresh=0.0, stale=0.0, while_away=True, kept=3)
    await cached.get("a")
    away()

    for number in range(10):
        with pytest.raises(Unavailable):
            await cached.get(f"invented {number}")

    assert await cached.get("a") == "a 1"


async def test_secret_keys_are_stored_as_hashes(shop):
    cached = kept(shop, hashed=True)
    await cached.get("rk_secret")

    assert "rk_secret" not in str(list(cached.loops.get().entries))
    assert (await cached.get("rk_secret"), shop.asked) == ("rk_secret 1", ["rk_secret"])


async def test_the_end_of_the_loop_cancels_running_loads(shop):
    shop.gate.clear()
    cached = kept(shop)
    waiting = asyncio.create_task(cached.get("a"))
    await eventually(lambda: shop.asked)

    await cached.loops.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_bounded_cache_evicts_its_oldest_entry():
    facts: Bounded[str, int] = Bounded(2)
    for number, name in enumerate("abc"):
        facts.put(name, number)
    facts.drop("b")

    assert [facts.get(name) for name in "abc"] == [None, None, 2]


# -- A change that this process made itself ------------------------------------------------------------------


async def test_a_change_is_served_during_an_outage_and_loaded_again_afterwards(shop, away):
    cached = kept(shop, while_away=True)
    await cached.get("a")

    cached.change("a", lambda known: f"{known} changed")
    away()

    assert await cached.get("a") == "a 1 changed"


async def test_a_load_that_began_before_a_change_does_not_undo_it(shop):
    cached = kept(shop)
    await cached.get("a")
    shop.gate.clear()
    old = asyncio.create_task(cached.get("a", since=time.monotonic()))
    await eventually(lambda: len(shop.asked) == 2)

    cached.change("a", lambda known: "changed")
    shop.gate.set()
    await old

    assert cached.peek("a") == "changed"
    assert await cached.get("a") == "a 3"
