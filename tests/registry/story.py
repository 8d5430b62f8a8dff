"""The story that the examples of the OpenAPI document tell: sends each to a service, learns the service's ids, compares the answers.

RECORD_EXAMPLES=1 keeps the answers, to be written into the files, in place of comparing them.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any

import aiohttp
import msgspec

from payments.inbound.signature import sign
from registry.edge.api import api as description
from registry.edge.examples import OperationExample
from tests.bed.receiver import Receiver
from tests.bed.stripe import WEBHOOK_SECRET

RECORD = os.environ.get("RECORD_EXAMPLES") == "1"
SHOP = "https://shop.example"  # of the examples; in the test a receiver of its own
BY_HAND = {"GET /openapi.json"}  # the whole answer would be its own example
FREE = {
    "metadata",
    "schema",
    "input",
    "payload",
    "headers",
    "data",
    "paths",
    "components",
}  # fields whose content is the caller's
DELIVERY = "4711"  # an id that is a number
TOKEN = "MTox…"
ITEMS = 3  # of a list that is recorded
BILLING_SECRET = "whsec_of_the_platform"
SECRETS = (
    (re.compile(r"whsec_[\w+/=-]+"), "whsec_…"),
    (re.compile(r"(token=)[\w%.:-]+"), rf"\1{TOKEN}"),
)
SIGNERS = {"POST /webhooks/stripe/{account}": WEBHOOK_SECRET, "POST /webhooks/billing": BILLING_SECRET}


class Story:
    """Sends the examples. What the service names otherwise (ids, addresses) is learned from its answers, and used from then on."""

    def __init__(self, server: str, key: str, receiver: Receiver, slug: str) -> None:
        self.server, self.key, self.receiver = server, key, receiver
        self.real = {SHOP: receiver.url.rstrip("/"), "shop.stripe": f"{slug}.stripe"}
        self.until_the_end = AsyncExitStack()
        self.differences: list[str] = []
        self.answers: dict[str, Any] = {}

    async def tells(self, name: str, example: OperationExample, **headers: str) -> None:
        method, path = name.split()
        address = re.sub(r"\{(\w+)\}", lambda at: str(self.here(example.path[at[1]])), path)
        body = None if example.body is msgspec.UNSET else json.dumps(self.here(example.body)).encode()
        query = {
            name: str(value).lower() if value in (True, False) else str(value)
            for name, value in self.here(example.query).items()
        }
        if signer := SIGNERS.get(name):
            headers["Stripe-Signature"] = sign(body or b"", signer.encode())
        sent = {
            "Authorization": f"Bearer {self.key}",
            **({"Content-Type": "application/json"} if body else {}),
            **headers,
        }
        async with (
            aiohttp.ClientSession(self.server, headers=sent) as session,
            session.request(method, address, params=query, data=body) as response,
        ):
            text = await response.text()
        if response.status != example.status:
            self.differences.append(f"{name}: {response.status} {text[:300]}")
            return
        if link := re.search(r"/file\?token=([^\"]+)", text):
            self.real[TOKEN] = link[1]
        is_json = response.content_type == "application/json" and text
        self.take(name, example, json.loads(text) if is_json else text or msgspec.UNSET)

    def take(self, name: str, example: OperationExample, answer: Any) -> None:
        self.learn(example.answer, answer)
        if RECORD:
            self.answers.setdefault(name, answer if answer is msgspec.UNSET else self.as_example(answer))
            return
        if example is description.examples[name]:  # a step between two of them has none to compare
            self.differences += [f"{name}: {text}" for text in differences(example.answer, answer)]

    def learn(self, example: Any, answer: Any) -> None:
        """Note the service's values in place of the example's."""
        if isinstance(example, dict) and isinstance(answer, dict):
            for name in example.keys() & answer.keys():
                self.learn(example[name], answer[name])
        elif isinstance(example, list) and isinstance(answer, list):
            for mine, real in zip(example, answer, strict=False):
                self.learn(mine, real)
        elif is_name(example) and type(example) is type(answer):
            self.real.setdefault(str(example), str(answer))

    def here(self, value: Any) -> Any:
        """An example's value with the names that the service has given."""
        return _each(value, lambda text: _replaced(text, self.real.items()))

    def as_example(self, answer: Any) -> Any:
        def named(text: str) -> str:
            text = _replaced(text, ((real, mine) for mine, real in self.real.items() if mine != DELIVERY))
            for pattern, shown in SECRETS:
                text = pattern.sub(shown, text)
            return text

        return _each(_short(answer), named, {int(self.real.get(DELIVERY, 0)): int(DELIVERY)})


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def _each(value: Any, change: Callable[[str], str], numbers: Mapping[int, int] = MappingProxyType({})) -> Any:
    """The value with every text in it changed, and `numbers` where they are ids."""
    if isinstance(value, dict):
        return {
            name: numbers.get(one, one) if name == "id" and type(one) is int else _each(one, change, numbers)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_each(one, change, numbers) for one in value]
    return change(value) if isinstance(value, str) else value


def is_name(value: Any) -> bool:
    """Whether it is the service that decides on it: ids, and tokens of links."""
    text = str(value)
    return text == DELIVERY or bool(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", text))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value[:ITEMS]]
    return value if not isinstance(value, str) or len(value) < 600 else value[:600].rpartition("\n")[0] + "\n…"


def differences(example: Any, answer: Any, at: str = "") -> list[str]:
    """Where the answer has other fields, or values of other types, than the example. Null may stand for any value."""
    if isinstance(example, dict) and isinstance(answer, dict):
        if at.rpartition(".")[2] in FREE:
            return []
        named = (
            [f"{at or 'the answer'} has not {sorted(example.keys() ^ answer.keys())}"]
            if example.keys() ^ answer.keys()
            else []
        )
        return named + [
            text
            for name in example.keys() & answer.keys()
            for text in differences(example[name], answer[name], f"{at}.{name}")
        ]
    if isinstance(example, list) and isinstance(answer, list):
        return [] if not answer or not example else differences(example[0], answer[0], f"{at}[0]")
    kinds = [float if isinstance(one, int) and not isinstance(one, bool) else type(one) for one in (example, answer)]
    return (
        []
        if kinds[0] is kinds[1] or None in (example, answer)
        else [f"{at or 'the answer'} is {answer!r}, not as {example!r}"]
    )
