"""A program that runs one job in a child process on uvloop, as a worker does, and prints the outcome: KIND INPUT."""

import asyncio
import os
import sys

import django
import uvloop


async def main() -> None:
    from queueing.jobs.processes.children import Children
    from tests.queueing import child_kinds  # noqa: F401 - registers the kinds
    from tests.queueing.child_runs import run

    children = Children()
    try:
        print(await run(children, sys.argv[1], sys.argv[2].encode()), flush=True)
    finally:
        await children.close()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
    django.setup(set_prefix=False)
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
