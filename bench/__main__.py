"""`python -m bench [NAME …] [--quick | --full]`: run the benchmarks, print the figures, store them and their chart."""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import machine, picture
from bench.figures import Effort, Figure
from bench.place import DATA, console
from registry.servers import embedded

NAMES = (
    *("accept", "settle", "contest", "latency", "summary", "books", "disk", "memory", "recovery"),
    *("webhooks-in", "webhooks-out"),
    *("queue-push", "queue-pop", "queue-dwell", "queue-latency", "queue-groups", "queue-history", "queue-peers"),
    *("jobs", "refunds-chaos", "console", "sync-async"),
)
MODULES = {"sync-async": "sync_async.compare"}  # others have the name's parts
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    effort = Effort.QUICK if options.quick else Effort.FULL if options.full else Effort.NORMAL
    with embedded.use(DATA):
        where = machine.describe(os.environ["DATABASE_URL"], os.environ["REDIS_URL"])
        for line in where.lines:
            console.print(line, style="dim", highlight=False)
        more = {"contest": {"users": options.users}} if options.users else {}
        outcomes = {name: measure(name, effort, **more.get(name, {})) for name in options.names or NAMES}
    keep(effort, where, outcomes)
    return 0 if all(outcome["error"] is None for outcome in outcomes.values()) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="seconds each: a check that they run; its figures are meaningless"
    )
    size.add_argument("--full", action="store_true", help="longer runs, and 10 million payments for the summary")
    parser.add_argument("--users", type=int, help="of the contest: only so many, in its longer timetable")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    return options


def measure(name: str, effort: Effort, **options: Any) -> dict[str, Any]:
    """Run one benchmark; a failure is printed and stored, and does not stop the others."""
    started = time.monotonic()
    figures: list[Figure] = []
    error = None
    try:
        figures = importlib.import_module(f"bench.{MODULES.get(name) or name.replace('-', '.')}").run(effort, **options)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
        console.print(f"[red]{name} failed[/]")
        console.print(traceback.format_exc(), style="dim", highlight=False, markup=False)
    else:
        console.print(table(name, figures))
    return {
        "figures": figures,
        "error": error,
        "seconds": round(time.monotonic() - started, 1),
        "at": datetime.now(UTC).isoformat(),
    }


def table(name: str, figures: list[Figure]) -> Table:
    shown = Table(title=name, title_justify="left", title_style="bold", expand=False)
    for column, justify in (
        ("figure", "left"),
        ("value", "right"),
        ("target", "right"),
        ("verdict", "left"),
        ("", "left"),
    ):
        shown.add_column(column, justify=justify)  # type: ignore[arg-type]
    for figure in figures:
        colour = {None: "", True: "green", False: "red"}[figure.met]
        verdict = f"[{colour}]{figure.verdict}[/]" if colour else ""
        shown.add_row(figure.what, figure.shown, figure.wanted, verdict, figure.note)
    return shown


def keep(effort: Effort, where: machine.Machine, outcomes: dict[str, dict[str, Any]]) -> None:
    """Store the figures; quick runs in separate files. A run of some benchmarks replaces their figures only."""
    RESULTS.mkdir(exist_ok=True)
    base = RESULTS / ("quick" if effort is Effort.QUICK else "figures")
    kept = json.loads(base.with_suffix(".json").read_text()) if base.with_suffix(".json").exists() else {}
    for name, outcome in outcomes.items():
        figures = [figure.as_json() for figure in outcome["figures"]]
        kept[name] = {**outcome, "figures": figures, "effort": effort.value, "machine": asdict(where)}
    kept = {name: kept[name] for name in NAMES if name in kept}
    base.with_suffix(".json").write_text(json.dumps(kept, indent=2) + "\n")
    everything = [figure_from(data) for outcome in kept.values() for data in outcome["figures"]]
    base.with_suffix(".svg").write_text(picture.draw("Registry: figures and targets", where.lines, everything) + "\n")
    console.print(f"kept in {base.with_suffix('.json')} and {base.with_suffix('.svg')}", style="dim", highlight=False)


def figure_from(data: dict[str, Any]) -> Figure:
    return Figure(**{name: value for name, value in data.items() if name != "verdict"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
