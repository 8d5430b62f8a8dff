"""The demo's queue: pushes orders, which two consumer groups read, and some of which become dead letters."""

import asyncio
import json
import random
from itertools import count
from typing import Any

from registry.http.client import Client, HttpError

QUEUE, GROUPS = "shop/orders", ("packing", "loyalty points")
SHOPS = ("recife", "curitiba", "belém", "salvador")
GOODS = ("two coffees", "a textbook", "running shoes", "a phone case", "a concert ticket")
ERRORS = ("the address has no street", "out of stock at this shop", "the label printer does not answer")
LIMIT = 10.0  # seconds for one request
PAUSE = 5.0  # seconds until the service is tried again
OPTIONS = {
    "leaseTime": 30,
    "retryLimit": 1,
    "retryDelay": 2000,
    "retentionEnabled": True,
    "completedRetentionSeconds": 86_400,
}
PUSH_EVERY, READ_EVERY = 1.2, 0.6  # seconds between pushes, and between the pops of a group, on average
WORKING = 0.05, 0.4  # seconds, at least and at most, between a pop and its acks
FAILING, MOST_DEAD = 0.02, 20  # share of messages that fail; dead letters at most, so that the demo can run for weeks


async def run(client: Client) -> None:
    """Push and read until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_until_answered(_configure, client))
        group.create_task(_repeat(_push, client, every=PUSH_EVERY))
        for name in GROUPS:
            group.create_task(_repeat(_read, client, name, every=READ_EVERY))


async def _repeat(work: Any, *args: Any, every: float) -> None:
    while True:
        await _until_answered(work, *args)
        await asyncio.sleep(random.expovariate(1 / every))


async def _until_answered(work: Any, *args: Any) -> None:
    """Repeat until the service answers."""
    while True:
        try:
            return await work(*args)
        except HttpError:
            await asyncio.sleep(PAUSE)


async def _call(client: Client, method: str, path: str, body: Any = None) -> Any:
    answer = await client.request(method, path, json.dumps(body).encode() if body is not None else b"", limit=LIMIT)
    return json.loads(answer.body) if answer.status in (200, 201) and answer.body else None


async def _configure(client: Client) -> None:
    await _call(client, "POST", "/api/v1/configure", {"queue": QUEUE, "options": OPTIONS})


_numbers = count(random.randrange(10_000, 90_000))


async def _push(client: Client) -> None:
    """Push one order, or sometimes several."""
    many = random.randrange(4, 12) if random.random() < 0.05 else 1
    shop = random.choice(SHOPS)
    payloads = [{"order": next(_numbers), "what": random.choice(GOODS), "shop": shop} for _ in range(many)]
    items = [{"queue": QUEUE, "partition": shop, "payload": payload} for payload in payloads]
    await _call(client, "POST", "/api/v1/push", {"items": items})


async def _read(client: Client, group: str) -> None:
    """Pop a few messages, wait, and acknowledge them; a few become dead letters."""
    name = group.replace(" ", "%20")
    found = await _call(client, "GET", f"/api/v1/pop/queue/{QUEUE}?batch=3&consumerGroup={name}&wait=true&timeout=5000")
    if not found:
        return
    await asyncio.sleep(random.uniform(*WORKING))
    failing = group == GROUPS[0] and random.random() < FAILING and await _may_fail(client)
    for message in found["messages"]:
        about = {key: message[key] for key in ("transactionId", "partitionId", "leaseId")}
        result = {"status": "dlq", "error": random.choice(ERRORS)} if failing else {"status": "completed"}
        await _call(client, "POST", "/api/v1/ack", {**about, **result, "consumerGroup": group})
        failing = False


async def _may_fail(client: Client) -> bool:
    found = await _call(client, "GET", f"/api/v1/dlq?queue={QUEUE}&limit=1")
    return bool(found) and found.get("total", MOST_DEAD) < MOST_DEAD
