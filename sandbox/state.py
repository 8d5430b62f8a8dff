"""State of the sandbox: objects, events, responses by idempotency key, clock; stored in a journal."""

import copy
import secrets
import string
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sandbox.errors import invalid, missing
from sandbox.journal import Journal

type Thing = dict[str, Any]

API_VERSION = "2026-10-28.endive"
ALPHABET = string.ascii_letters + string.digits
KEYS_KEPT = 24 * 3600  # seconds until an idempotency key expires, as at Stripe
MOST_PER_PAGE = 100
CLOCK = "=clock"  # journal names that are not object ids begin with "="
ANSWER = "=answer "


class KeptAnswer(msgspec.Struct, frozen=True):
    """Stored response of an idempotency key, with the fingerprint of its request."""

    request: str
    status: int
    body: bytes
    request_id: str
    at: int


class State:
    """Objects in Stripe's format; private fields begin with an underscore and are never sent."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal
        self.things: dict[str, Thing] = {}
        self.kinds: dict[str, dict[str, Thing]] = defaultdict(dict)  # by kind, in order of creation
        self.answers: dict[str, KeptAnswer] = {}
        self.ahead = 0  # seconds by which the clock is advanced
        self.outbox: deque[Thing] = deque()  # events whose delivery has not begun
        self.cause: dict[str, Any] = {"id": None, "idempotency_key": None}  # the request being executed
        self.changed: dict[str, Any] = {}  # changes not yet in the journal
        self.url = ""  # base URL for browsers

    # -- Objects --

    def now(self) -> int:
        return int(time.time()) + self.ahead

    def add(self, thing: Thing) -> Thing:
        self.things[thing["id"]] = self.kinds[thing["object"]][thing["id"]] = thing
        return self.save(thing)

    def save(self, thing: Thing) -> Thing:
        self.changed[thing["id"]] = thing
        return thing

    def remove(self, thing: Thing) -> None:
        del self.things[thing["id"]], self.kinds[thing["object"]][thing["id"]]
        self.changed[thing["id"]] = None

    def find(self, kind: str, name: str, param: str = "id", *, status: int = 404) -> Thing:
        """The object. Raises StripeError (404, or `status`, such as 400 for a parameter)."""
        if (thing := self.kinds[kind].get(name)) is None:
            raise missing(kind, name, param, status)
        return thing

    def of(self, kind: str, **fields: Any) -> list[Thing]:
        """Objects of a kind with these values, oldest first."""
        return [thing for thing in self.kinds[kind].values() if all(thing.get(n) == v for n, v in fields.items())]

    # -- Events --

    def emit(self, type_: str, thing: Thing, *, previous: Mapping[str, Any] | None = None) -> Thing:
        """Create an event about `thing`; it is delivered after the request is in the journal."""
        data = {"object": public(thing), **({"previous_attributes": dict(previous)} if previous else {})}
        event = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": dict(self.cause),
            "type": type_,
        }
        self.outbox.append(self.add(event))
        return event

    # -- Journal --

    async def restore(self) -> None:
        if self.journal is None:
            return
        for name, value in await self.journal.open():
            if name == CLOCK:
                self.ahead = value
            elif name.startswith(ANSWER):
                self.answers[name.removeprefix(ANSWER)] = msgspec.convert(value, KeptAnswer)
            else:
                self.things[name] = self.kinds[value["object"]][name] = value
        self.forget_old_keys()

    async def write_down(self) -> None:
        """Write all changes to the journal."""
        changed, self.changed = self.changed, {}
        if self.journal is not None and changed:
            await self.journal.write(changed)

    def keep_answer(self, key: str, answer: KeptAnswer) -> None:
        self.answers[key] = answer
        self.changed[ANSWER + key] = answer

    def kept_answer(self, key: str) -> KeptAnswer | None:
        kept = self.answers.get(key)
        return kept if kept and kept.at > self.now() - KEYS_KEPT else None

    def forget_old_keys(self) -> None:
        for key in [key for key in self.answers if self.kept_answer(key) is None]:
            del self.answers[key]
            self.changed[ANSWER + key] = None

    def put_forward(self, seconds: int) -> None:
        self.ahead += seconds
        self.changed[CLOCK] = self.ahead
        self.forget_old_keys()


def new_id(prefix: str, length: int = 24) -> str:
    return f"{prefix}_" + "".join(secrets.choice(ALPHABET) for _ in range(length))


def public(thing: Any) -> Any:
    """A copy without private fields."""
    if isinstance(thing, dict):
        return {name: public(value) for name, value in thing.items() if not name.startswith("_")}
    return [public(item) for item in thing] if isinstance(thing, list) else copy.copy(thing)


def with_metadata(old: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
    """Merge metadata: an empty value removes its key; None removes all."""
    if changes is None:
        return {}
    return {name: text for name, text in {**old, **changes}.items() if text}


# -- Lists --------------------------------------------------------------------------------------------------


def listing(
    state: State,
    kind: str,
    url: str,
    params: Mapping[str, Any],
    keep: Callable[[Thing], bool] = lambda _: True,
    **fields: Any,
) -> Thing:
    """A page of objects of a kind, newest first; `fields` that are None do not filter."""
    wanted = {name: value for name, value in fields.items() if value is not None}
    bounds = params.get("created", {})
    found = [
        thing
        for thing in state.kinds[kind].values()
        if _within(thing["created"], bounds) and all(thing.get(n) == v for n, v in wanted.items()) and keep(thing)
    ]
    return page(found[::-1], url, params)


def page(things: list[Thing], url: str, params: Mapping[str, Any]) -> Thing:
    """The requested page of `things`."""
    limit = params.get("limit", 10)
    if not 1 <= limit <= MOST_PER_PAGE:
        raise invalid(f"Invalid limit: must be from 1 to {MOST_PER_PAGE}", param="limit")
    if before := params.get("ending_before"):
        earlier = things[: _place(things, before, "ending_before")]
        return _list(earlier[-limit:], url, len(earlier) > limit)
    start = _place(things, after, "starting_after") + 1 if (after := params.get("starting_after")) else 0
    return _list(things[start : start + limit], url, len(things) > start + limit)


def _list(things: list[Thing], url: str, more: bool) -> Thing:
    return {"object": "list", "data": [public(thing) for thing in things], "has_more": more, "url": url}


def _place(things: list[Thing], name: str, param: str) -> int:
    for number, thing in enumerate(things):
        if thing["id"] == name:
            return number
    raise missing("object", name, param, 400)


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": int.__gt__,
    "gte": int.__ge__,
    "lt": int.__lt__,
    "lte": int.__le__,
}


def _within(time_: int, bounds: Mapping[str, int]) -> bool:
    return all(_COMPARE[name](time_, bound) for name, bound in bounds.items())


def expand(state: State, answer: Any, paths: list[str]) -> None:
    """Replace ids by their objects, in place (`expand`). Raises StripeError."""
    for path in paths:
        _expand(state, answer, path.split("."), path)


def _expand(state: State, place: Any, parts: list[str], path: str) -> None:
    if isinstance(place, list):
        for item in place:
            _expand(state, item, parts, path)
    elif isinstance(place, dict):
        if (name := parts[0]) not in place:
            raise invalid(f"This property cannot be expanded ({path}).", param="expand")
        if isinstance(place[name], str) and place[name] in state.things:
            place[name] = public(state.things[place[name]])
        if len(parts) > 1:
            _expand(state, place[name], parts[1:], path)
