"""`python -m bench.queue.turns CHECKOUT [--pairs N] [LOAD …]`: the queue of another checkout and of this one, loaded in turn.

A load is `push`, `pop` (popped, then acked) or `half` (pushes in an open loop at half of the older one's rate) with its batch, such
as push-100. Both services run beside each other, each with a database of its own on the same server. Each turn prints rate and processor
time per message; the medians of the pairs' ratios are what counts.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

LOADS = tuple(f"{kind}-{batch}" for kind in ("push", "half", "pop") for batch in (1, 10, 100))
SECONDS = 4.0  # of a push
HALF_SECONDS = 8.0
BACKLOG = {1: 4_000, 10: 30_000, 100: 150_000}  # messages that are read in a turn
PRODUCERS = 100  # numbers of producers of a turn
HERE = Path(__file__).resolve()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.queue.turns", description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=" ".join(LOADS))
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_intermixed_args(arguments)
    loads = options.loads or LOADS
    if unknown := set(loads) - set(LOADS):
        parser.error(f"no load: {' '.join(sorted(unknown))}")
    from bench.place import DATA
    from bench.turns import side
    from registry.servers import embedded

    with (
        embedded.use(DATA),
        side("old", options.checkout, script=HERE) as old,
        side("new", HERE.parents[2], script=HERE) as new,
    ):
        for load in loads:
            compare(load, options.pairs, {"old": old, "new": new})


def compare(load: str, pairs: int, sides: dict) -> None:
    rate = 0.0
    if load.startswith("half"):
        rate = ask(sides["old"], load.replace("half", "push"))["rate"] / int(load.rpartition("-")[2]) / 2
    ratios: dict[str, list[float]] = {}
    for number in range(pairs):
        said = {}
        for name in sorted(sides, reverse=bool(number % 2)):
            said[name] = ask(sides[name], load, rate)
        for figure in ("rate", "web", "postgres", "service", "p50", "p99"):
            if said["old"][figure]:
                ratios.setdefault(figure, []).append(said["new"][figure] / said["old"][figure])
        print(f"{load} {number + 1}  " + "   ".join(f"{name}: {text(said[name])}" for name in ("old", "new")), flush=True)
    print(f"{load}  new against old: " + ", ".join(f"{k} {median(v):.2f} ({min(v):.2f}–{max(v):.2f})" for k, v in ratios.items()))
    sys.stdout.flush()


def text(one: dict[str, float]) -> str:
    return (
        "{rate:,.0f}/s, web {web:.1f} + PostgreSQL {postgres:.1f} µs, p50 {p50:.1f} p99 {p99:.1f} worst {worst:.0f} ms".format_map(one)
    )


def ask(side, load: str, rate: float = 0.0) -> dict[str, float]:
    side.stdin.write(json.dumps([load, rate]) + "\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise RuntimeError("a side ended")
    return json.loads(line)


def be_side(name: str) -> None:
    from bench.place import place, web
    from bench.queue.cost import counted
    from bench.queue.load import Load, drive, prepare

    with place(f"queue_turns_{name}") as here, web(here) as process:
        print("ready", flush=True)
        turn, prepared = 0, set()
        for line in sys.stdin:
            load, rate = json.loads(line)
            kind, _, batch = load.rpartition("-")
            size = int(batch)
            turn += 1
            plan = Load(process.port, here.headers, f"turns-{'pop' if kind == 'pop' else 'push'}-{size}", size, first=turn % 90 * PRODUCERS)
            if plan.queue not in prepared:
                prepared.add(plan.queue)
                prepare(replace(plan, read=2) if kind == "pop" else plan)
                if kind != "pop":
                    drive(replace(plan, first=9_700, push=50, seconds=2.0))
            if kind == "pop":
                per_push = min(100, BACKLOG[size] // 100)
                pushed = drive(replace(plan, batch=per_push, push=10, messages=BACKLOG[size])).pushed
                with counted(here, process) as cost:
                    report = drive(replace(plan, read=50, wanted=pushed))
                done, speed = report.delivered, report.read_rate
            else:
                with counted(here, process) as cost:
                    report = drive(replace(plan, push=50, seconds=HALF_SECONDS if rate else SECONDS, rate=rate))
                done, speed = report.pushed, report.push_rate
            process.check()
            each = {which: 1e6 * getattr(cost, which) / done for which in ("web", "postgres", "service")}
            print(json.dumps({**each, "rate": speed, "p50": report.p50, "p99": report.p99, "worst": report.worst, "client": 1e6 * report.cpu / done}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        be_side(sys.argv[2])
    else:
        main(sys.argv[1:])
