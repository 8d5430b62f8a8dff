"""Kinds of jobs for tests of child processes: well-behaved ones, and each kind of misbehaviour."""

import ctypes
import logging
import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from django.db import connections

from queueing.jobs.kinds import Context, JobFailed, JobRetry, kind
from registry.data import database
from registry.data.loop import PerLoop

MIB = 2**20
FAMILY = 4  # processes of `family`, itself included


class Given(msgspec.Struct, forbid_unknown_fields=True):
    number: int = 0
    text: str = ""
    path: str = ""
    password: str = ""


def for_tests(name: str, **options: Any):
    return kind(f"child.{name}", input=Given, public=False, **options)


# -- Well-behaved ----------------------------------------------------------------------------------------------


@for_tests("echo")
def echo(context: Context, given: Given) -> dict[str, Any]:
    about = {"job": context.job_id, "tenant": context.tenant_id, "attempt": context.attempt, "key": context.key}
    return {"text": given.text, **about}


@for_tests("process")
def process(context: Context, given: Given) -> dict[str, Any]:
    """What the kernel says of the process."""
    return {
        "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "input": sys.stdin.read(),
    }


async def _tell(resource: str) -> None:
    print(f"closed {resource}")


greetings: PerLoop[str] = PerLoop(lambda: "hello", close=_tell)


@for_tests("asynchronous")
async def asynchronous(context: Context, given: Given) -> dict[str, Any]:
    [(number,)] = await database.fetch("SELECT 6 * 7")
    return {"number": number, "greeting": greetings.get()}


@for_tests("outage")
def outage(context: Context, given: Given) -> None:
    """Find the database of the service away."""
    connections["default"].settings_dict["PORT"] = given.number
    connections["default"].ensure_connection()


@for_tests("elsewhere")
def elsewhere(context: Context, given: Given) -> None:
    """Find another database away."""
    psycopg.connect(f"postgresql://nobody@127.0.0.1:{given.number}/none")


@for_tests("writes")
async def writes(context: Context, given: Given) -> int:
    async with context.file("numbers.txt", "text/plain") as file:
        await file.write(given.text.encode())
    return file.size


@for_tests("steps")
def steps(context: Context, given: Given) -> int:
    """Reports as fast as it can, and again and again what it reported last: until it is canceled, or as often as it is told."""
    done = 0
    while not given.number or done < given.number:
        done += 1
        context.progress(done, given.number or None, f"step {done} password={given.password}")
    return done


@for_tests("logs")
def logs(context: Context, given: Given) -> None:
    context.log.warning("note password=%s", given.text, extra={"api_key": given.text, "shelf": 7})
    try:
        raise ValueError(f"token={given.text}")
    except ValueError:
        logging.getLogger("shop.stock").exception("counted badly")


# -- Misbehaving -------------------------------------------------------------------------------------------------


@for_tests("hangs")
def hangs(context: Context, given: Given) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _write_pid(given.path)
    while True:
        time.sleep(60)


@for_tests("family")
def family(context: Context, given: Given) -> None:
    """Starts a process in its group, one in a session of its own, and one that is an orphan in such a session."""
    _write_pid(given.path)
    subprocess.Popen(["sh", "-c", f"echo $$ >> {given.path}; exec sleep 600"])
    subprocess.Popen(["sh", "-c", f"echo $$ >> {given.path}; exec sleep 600"], start_new_session=True)
    if (middle := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            _write_pid(given.path)
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
    while len(Path(given.path).read_text().splitlines()) < FAMILY:
        time.sleep(0.005)
    match given.text:
        case "hangs":
            time.sleep(600)
        case "dies":
            os._exit(0)


def _write_pid(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


@for_tests("eats")
def eats(context: Context, given: Given) -> None:
    """Allocates memory, a MiB at a time, and writes to it."""
    eaten = []
    while True:
        eaten.append(bytearray(MIB))


@for_tests("feeds")
def feeds(context: Context, given: Given) -> None:
    """Starts `number` processes that allocate 48 MiB each and share nothing, then waits."""
    for _ in range(given.number):
        if os.fork() == 0:
            eaten = bytearray(48 * MIB)
            time.sleep(600)
            print(len(eaten))
    time.sleep(600)


@for_tests("shares")
def shares(context: Context, given: Given) -> str:
    """Starts `number` processes that have 48 MiB in common, and ends when the memory was looked at a few times."""
    common = mmap.mmap(-1, 48 * MIB)
    common.write(b"x" * len(common))
    for _ in range(given.number):
        if os.fork() == 0:
            print(sum(common[at] for at in range(0, len(common), mmap.PAGESIZE)))
            time.sleep(600)
    time.sleep(1.2)
    return "done"


@for_tests("prints")
def prints(context: Context, given: Given) -> None:
    print(f"Authorization: Bearer {given.text}")
    print(f"password={given.text}", file=sys.stderr)
    print(given.password)
    os.write(1, b"postgres://user:%s@host/" % given.text.encode())  # without an end of the line
    sys.stdout.write("\udcff\n")


@for_tests("chats")
def chats(context: Context, given: Given) -> str:
    for _ in range(given.number):
        print(given.text)
    return "done"


@for_tests("logs_much")
def logs_much(context: Context, given: Given) -> str:
    for _ in range(given.number):
        context.log.info(given.text)
    return "done"


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.held = lambda: None

    def __reduce__(self):
        raise TypeError("this is not pickled")


@for_tests("raises")
def raises(context: Context, given: Given) -> None:
    raise Unpicklable("it broke:", f"password={given.text}")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@for_tests("raises_unspeakable")
def raises_unspeakable(context: Context, given: Given) -> None:
    raise Unspeakable


@for_tests("gives_up")
def gives_up(context: Context, given: Given) -> None:
    raise JobFailed(f"there is no shelf {given.number}", code="no_shelf")


@for_tests("waits_for_stock")
def waits_for_stock(context: Context, given: Given) -> None:
    raise JobRetry("none left", code="no_stock", after=30.0)


@for_tests("leaves")
def leaves(context: Context, given: Given) -> None:
    sys.exit(given.number)


@for_tests("exits")
def exits(context: Context, given: Given) -> None:
    os._exit(given.number)


@for_tests("crashes")
def crashes(context: Context, given: Given) -> None:
    ctypes.string_at(0)


@for_tests("closes")
def closes(context: Context, given: Given) -> None:
    """Closes all files, its socket and its output among them; then it works on, or returns at once."""
    os.closerange(0, 1000)
    time.sleep(given.number)


@for_tests("returns")
def returns(context: Context, given: Given) -> Any:
    values = {"object": object(), "half": "\ud800", "text": "x" * given.number}
    loop: list[Any] = []
    loop.append(loop)
    return {**values, "circle": loop}[given.text]


@for_tests("forks")
def forks(context: Context, given: Given) -> str:
    """Returns twice, first in the new process."""
    if (other := os.fork()) == 0:
        return "child"
    os.waitpid(other, 0)
    return "parent"


@for_tests("keeps_secret", secret=("password",))
def keeps_secret(context: Context, given: Given) -> None:
    print(f"it is {given.password}")
    context.progress(1, 2, f"with {given.password}")
    raise JobFailed(f"not with {given.password}")
