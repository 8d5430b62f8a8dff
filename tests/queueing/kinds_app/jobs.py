"""Kinds of jobs for tests, in an app as an operator adds one: REGISTRY_APPS=tests.queueing.kinds_app."""

import asyncio
import os
import random
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec
import psycopg

from queueing.jobs.kinds import Context, JobFailed, JobRetry, kind
from registry.errors import Unavailable


class Task(msgspec.Struct, forbid_unknown_fields=True):
    """What a job of these kinds is to do."""

    text: str = ""
    steps: int = 0
    seconds: float = 0.0
    headers: dict[str, str] = {}


CALLS: list[tuple[str, str, int]] = []  # kind, text, attempt: in the order in which the functions of this process began


@kind("test.echo", input=Task, runs="loop")
async def echo(context: Context, task: Task) -> dict[str, Any]:
    """Return the text, after some steps."""
    CALLS.append(("test.echo", task.text, context.attempt))
    for step in range(task.steps):
        context.progress(step, task.steps, f"step {step}")
        await asyncio.sleep(task.seconds)
    return {"text": task.text}


@kind("test.fail", input=Task, runs="loop", attempts=3)
async def fail(context: Context, task: Task) -> None:
    """Fail: for good, in a way that may pass, or by an error."""
    CALLS.append(("test.fail", task.text, context.attempt))
    if task.text == "for good":
        raise JobFailed("the card is stolen", code="stolen")
    if task.text == "later":
        raise JobRetry("the shop is closed", code="closed", after=0.01)
    raise ZeroDivisionError("password=hunter2hunter2")


@kind("test.secret", input=Task, runs="loop", secret=("headers",))
async def secret(context: Context, task: Task) -> dict[str, str]:
    """Return the secret that it was given, or fail by it."""
    if task.text == "fail":
        raise ValueError(f"{task.headers['X-Key']} is wrong")
    return task.headers


@kind("test.one", input=Task, runs="loop", concurrency=1)
async def one(context: Context, task: Task) -> str:
    """One at a time, in all."""
    CALLS.append(("test.one", task.text, context.attempt))
    await asyncio.sleep(task.seconds)
    return task.text


@kind("test.each", input=Task, runs="loop", tenant_concurrency=1)
async def each(context: Context, task: Task) -> str:
    """One at a time of each tenant."""
    return task.text


@kind("test.rated", input=Task, runs="loop", rate=0.01, concurrency=3)
async def rated(context: Context, task: Task) -> str:
    """A start every 100 seconds, three at a time."""
    return task.text


@kind("test.admin", input=Task, runs="loop", scope="admin")
async def admin(context: Context, task: Task) -> str:
    """For keys with the scope admin."""
    if task.text == "fail":
        raise JobFailed("as asked")
    return task.text


@kind("test.internal", input=Task, runs="loop", public=False)
async def internal(context: Context, task: Task) -> str:
    """Submitted by the product itself only."""
    return task.text


@kind("test.block", input=Task, runs="loop", attempts=2)
async def block(context: Context, task: Task) -> None:
    """Block the event loop: what no function on the loop may do."""
    time.sleep(task.seconds)


@kind("test.wait", input=Task, runs="loop")
async def wait(context: Context, task: Task) -> str:
    """Wait, with a checkpoint every few milliseconds."""
    CALLS.append(("test.wait", task.text, context.attempt))
    for _ in range(round(task.seconds * 100)):
        context.check()
        await asyncio.sleep(0.01)
    return task.text


@kind("test.file", input=Task, runs="loop")
async def file(context: Context, task: Task) -> dict[str, int]:
    """Write a file, compressed, larger than one row of it."""
    async with context.file("numbers.txt.gz", "application/gzip", gzip=True) as output:
        for _ in range(task.steps):
            await output.write(random.randbytes(100_000))
    return {"size": output.size}


@kind("test.sync", input=Task)
def sync(context: Context, task: Task) -> dict[str, Any]:
    """In a process of its own: block it, with reports of progress."""
    for step in range(task.steps):
        context.progress(step, task.steps, f"step {step}")
        time.sleep(task.seconds)
    return {"text": task.text, "pid": os.getpid()}


@kind("test.large", input=Task, runs="loop")
async def large(context: Context, task: Task) -> str:
    """Return more than a result may have."""
    return "x" * 70_000


@kind("test.back", input=Task, runs="loop")
async def back(context: Context, task: Task) -> None:
    """Report progress that goes back."""
    context.progress(5, 10, "half")
    context.progress(2, None, "begun anew")


@kind("test.away", input=Task, runs="loop")
async def away(context: Context, task: Task) -> str:
    """Find the database unavailable, the first time."""
    CALLS.append(("test.away", task.text, context.attempt))
    if len(CALLS) == 1:
        raise Unavailable("the database is away")
    return "done"


@kind("test.garbled", input=Task, runs="loop")
async def garbled(context: Context, task: Task) -> None:
    """Report and raise what PostgreSQL cannot store."""
    context.progress(2**70, -(2**70), "a\0\ud800")
    match task.text:
        case "fails":
            raise JobFailed(ValueError("a\0\ud800"), code=7)  # type: ignore[arg-type]
        case "retry":
            raise JobRetry("a\0\ud800", code="x\0", after=float("inf"))
    raise ValueError("a\0\ud800")


@kind("test.slow", input=Task, runs="loop")
async def slow(context: Context, task: Task) -> None:
    """Ask the database for more than it does within its time limit."""
    raise Unavailable("the database did not answer in time") from psycopg.errors.QueryCanceled()


@kind("test.stubborn", input=Task, runs="loop", attempts=1)
async def stubborn(context: Context, task: Task) -> None:
    """Go on whatever happens: what no function on the loop may do."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@kind("test.exit", input=Task, runs="loop", attempts=1)
async def leave(context: Context, task: Task) -> None:
    """Leave the interpreter, at once or later."""
    await asyncio.sleep(task.seconds)
    sys.exit(3)


@kind("test.stall", input=Task, runs="loop", attempts=2)
async def stall(context: Context, task: Task) -> None:
    """Block the event loop in a task of its own."""

    async def part() -> None:
        time.sleep(task.seconds)

    await asyncio.create_task(part())
