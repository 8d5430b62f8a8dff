"""`python -m bench.turns CHECKOUT [--pairs N] [--traced RATE]`: processor time per accept of another checkout and of this one, in turn.

Both run beside each other, each with a database of its own on the same server, and are loaded one after the other. A change of the
hot path is judged by the median ratio of the pairs: rates of a shared machine differ by more than most changes cost. With --traced
this one traces so large a share of its payments, for a receiver in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

CONNECTIONS = 32
WARM_UP = 3.0  # seconds: pools open, keys are cached, statements prepared
SECONDS = 5.0  # of a turn
HERE = Path(__file__).resolve()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.turns", description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument(
        "--traced", type=float, metavar="RATE", help="from 0 to 1, such as 0.01; default: tracing is off"
    )
    options = parser.parse_args(arguments)
    from bench.place import DATA
    from registry.servers import embedded

    with (
        embedded.use(DATA),
        traces(options.traced) as tracing,
        side("old", options.checkout) as old,
        side("new", HERE.parents[1], **tracing) as new,
    ):
        ratios = [pair(number, old, new) for number in range(options.pairs)]
    print(
        f"new against old, median of {len(ratios)} pairs: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


def pair(number: int, old: subprocess.Popen, new: subprocess.Popen) -> float:
    """One turn of each; which is first alternates."""
    spent = {}
    for name, one in (("old", old), ("new", new)) if number % 2 else (("new", new), ("old", old)):
        spent[name] = ask(one)
    web, all_of_it = (spent["new"][kind] / spent["old"][kind] for kind in ("web", "service"))
    old_text, new_text = ("{web:.0f} + {postgres:.0f}".format_map(spent[name]) for name in ("old", "new"))
    print(
        f"{number + 1:>3}  old {old_text}, new {new_text} µs per accept (web + PostgreSQL); {all_of_it:.3f}, web {web:.3f}"
    )
    return all_of_it


def ask(side: subprocess.Popen) -> dict[str, float]:
    assert side.stdin and side.stdout
    side.stdin.write("\n")
    side.stdin.flush()
    return json.loads(side.stdout.readline())


@contextmanager
def traces(rate: float | None) -> Iterator[dict[str, str]]:
    """The environment of a service that traces `rate` of its payments, and the receiver of its spans; nothing if it is None."""
    if rate is None:
        yield {}
        return
    command = [sys.executable, "-m", "tests.bed.traces"]
    with subprocess.Popen(command, cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        try:
            address = receiver.stdout.readline().removeprefix("ready ").strip()
            yield {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "TRACE_SAMPLE_RATE": str(rate)}
        finally:
            receiver.terminate()
            print(f"the receiver got {receiver.stdout.read().strip()}")


@contextmanager
def side(name: str, checkout: Path, *, script: Path = HERE, **more: str) -> Iterator[subprocess.Popen]:
    """A process that runs `checkout`, loads it at each line that it reads, and writes what that cost."""
    from bench.place import DATA

    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "REGISTRY_DATA": str(DATA.parent)} | more
    command = [sys.executable, "-P", str(script), "--side", name]  # -P: bench/queue would hide Python's own module
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=checkout, env=environment, **pipes) as running:  # type: ignore[call-overload]
        try:
            if not running.stdout.readline():
                raise RuntimeError(f"the {name} side did not start")
            yield running
        finally:
            running.stdin.close()
            running.wait()


def be_side(name: str) -> None:
    from bench.load import Load, run
    from bench.place import place, web
    from bench.queue.cost import counted

    with place(f"turns_{name}") as here, web(here) as process:
        run(Load(process.port, CONNECTIONS, WARM_UP, headers=here.headers))
        print("ready", flush=True)
        for _ in sys.stdin:
            with counted(here, process) as cost:
                result = run(Load(process.port, CONNECTIONS, SECONDS, headers=here.headers))
            process.check()
            each = {kind: 1e6 * getattr(cost, kind) / result.requests for kind in ("web", "postgres", "service")}
            print(json.dumps(each), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        be_side(sys.argv[2])
    else:
        main(sys.argv[1:])
