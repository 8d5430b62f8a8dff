"""`make lab ARGS="--seed 7 --strikes 20"`: hosts as network namespaces on this machine, a load, strikes by a seed, and the books.

Status 1 if anything is wrong, 2 where this machine lacks something. Everything is taken down at the end, also after ^C.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys

from rich.console import Console
from rich.live import Live

from tests.chaos.service import PROJECT
from tests.histories import entries
from tests.lab.laboratory import WAYS
from tests.lab.needs import missing
from tests.lab.run import Run
from tests.lab.strikes import plan, strikes

KEPT = PROJECT / ".data" / "lab"
MISSING = 2  # status
RATE = 60  # payments a second: eleven servers and two processors share the machine with the service


async def main(options: argparse.Namespace, console: Console) -> int:
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    chosen = plan(options.seed, number=options.strikes, way=options.way, held=options.held, only=options.only)
    kept = KEPT / str(options.seed)
    run = Run(
        options.seed, chosen, options.way, options.rate, kept, tell=lambda text: console.print(text, soft_wrap=True)
    )
    console.print(f"seed {options.seed}: {len(chosen)} strikes, {options.rate} payments a second", soft_wrap=True)
    good = False
    try:
        with Live(run, console=console, refresh_per_second=2):
            await run.run()
        good = not run.faults
    except asyncio.CancelledError:
        console.print("[yellow]interrupted; everything was taken down")
        return 130
    except Exception as error:
        console.print(f"[bold red]{run.phases.now}: {type(error).__name__}", str(error), markup=False, soft_wrap=True)
    console.print()
    for fault in run.faults:
        console.print(f"wrong: {fault}", style="red", markup=False, soft_wrap=True)
    for line in run.summary():
        console.print(line, soft_wrap=True)
    console.print(str(run.phases), soft_wrap=True)
    if good and not options.keep:
        shutil.rmtree(kept)
    elif kept.exists():
        entries.write(kept / "history.jsonl", run.recorder.finish() if not run.lines else run.lines)
        console.print(f"history and logs in {kept}", soft_wrap=True)
    return not good


def start(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make lab", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats the same strikes")
    parser.add_argument("--strikes", type=int, default=5)
    parser.add_argument("--rate", type=int, default=RATE, help="payments a second")
    parser.add_argument(
        "--way", choices=WAYS, default=WAYS[0], help="to the primary: several hosts in DATABASE_URL, or HAProxy"
    )
    parser.add_argument("--only", action="append", metavar="STRIKE", help="this one; may be repeated")
    parser.add_argument("--held", type=float, metavar="SECONDS", help="how long each strike lasts")
    parser.add_argument("--keep", action="store_true", help="keep history and logs also where nothing is wrong")
    parser.add_argument("--list", action="store_true", help="the names of all strikes")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(one.name for one in strikes("haproxy")))
        return 0
    if absent := missing():
        print("The laboratory cannot run here. It needs:", *(f"- {one}" for one in absent), sep="\n", file=sys.stderr)
        return MISSING
    os.umask(0o022)
    return asyncio.run(main(options, Console()))


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
