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
CONNECTIONS = 50
WARM_UP = 2.0  # seconds
SECONDS, HALF_SECONDS = 4.0, 8.0  # of a turn that pushes, as fast as it goes and at half of that rate
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
        print(f"{load} {number + 1}  old: {text(said['old'])}   new: {text(said['new'])}", flush=True)
    medians = (f"{name} {median(all):.2f} ({min(all):.2f} to {max(all):.2f})" for name, all in ratios.items())
    print(f"{load}  new against old, medians of {pairs} pairs: {', '.join(medians)}", flush=True)


def text(one: dict[str, float]) -> str:
    cost = "{rate:,.0f}/s, web {web:.1f} + PostgreSQL {postgres:.1f} µs per message".format_map(one)
    return cost + ", p50 {p50:.1f}, p99 {p99:.1f}, worst {worst:.0f} ms".format_map(one) * (one["p50"] > 0)


def ask(side, load: str, rate: float = 0.0) -> dict[str, float]:
    side.stdin.write(json.dumps([load, rate]) + "\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise RuntimeError("a side ended")
    return json.loads(line)


def be_side(name: str) -> None:
    from bench.place import place, web

    with place(f"queue_turns_{name}") as here, web(here) as process:
        print("ready", flush=True)
        prepared: set[str] = set()
        for turn, line in enumerate(sys.stdin, 1):
            load, rate = json.loads(line)
            said = turned(here, process, load, rate, PRODUCERS * (turn % 90), prepared)
            process.check()
            print(json.dumps(said), flush=True)


def turned(here, process, load: str, rate: float, first: int, prepared: set[str]) -> dict[str, float]:
    """Rate, latency and processor time per message of one turn."""
    from bench.queue.cost import counted
    from bench.queue.load import Load, drive, prepare

    kind, batch = load.partition("-")[0], int(load.rpartition("-")[2])
    queue = f"turns-{'pop' if kind == 'pop' else 'push'}-{batch}"
    plan = Load(process.port, here.headers, queue, batch, first=first)
    if queue not in prepared:
        prepared.add(queue)
        prepare(replace(plan, read=2) if kind == "pop" else plan)
        if kind != "pop":
            drive(replace(plan, first=PRODUCERS * 95, push=CONNECTIONS, seconds=WARM_UP))
    if kind == "pop":
        per_push = min(100, BACKLOG[batch] // 100)
        pushed = drive(replace(plan, batch=per_push, push=10, messages=BACKLOG[batch])).pushed
        plan = replace(plan, read=CONNECTIONS, wanted=pushed)
    else:
        plan = replace(plan, push=CONNECTIONS, seconds=HALF_SECONDS if rate else SECONDS, rate=rate)
    with counted(here, process) as cost:
        report = drive(plan)
    done = report.pushed or report.delivered
    each = {which: 1e6 * getattr(cost, which) / done for which in ("web", "postgres", "service")}
    times = {"p50": report.p50, "p99": report.p99, "worst": report.worst}
    return {**each, **times, "rate": report.push_rate or report.read_rate}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        be_side(sys.argv[2])
    else:
        main(sys.argv[1:])
