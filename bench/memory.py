"""Memory of the web process after many payments, compared with after few: growth with requests is a leak."""

from bench.figures import Effort, Figure
from bench.load import Load
from bench.load import run as drive
from bench.place import place, progress, web

STEPS = {Effort.QUICK: (2_000, 20_000), Effort.NORMAL: (50_000, 500_000), Effort.FULL: (50_000, 2_000_000)}
PORTIONS = 10  # steps of the progress bar
CONNECTIONS = 32


def run(effort: Effort) -> list[Figure]:
    few, many = STEPS[effort]
    with place("memory") as here, web(here) as process, progress() as bars:
        bar = bars.add_task("accepting", total=many)

        def accept(count: int) -> float:
            """Resident MiB after `count` more payments."""
            result = drive(Load(process.port, CONNECTIONS, requests=count, headers=here.headers))
            if result.errors:
                raise RuntimeError(f"{result.errors} errors: {process.log.read_text()[-2000:]}")
            bars.advance(bar, count)
            return process.memory

        early = accept(few)
        late = [accept((many - few) // PORTIONS) for _ in range(PORTIONS)]
    note = f"{early:.1f} MiB after {few:,}, {late[-1]:.1f} MiB after {many:,} accepts"
    return [
        Figure(
            "memory of the web process",
            late[-1] / early,
            "×",
            1.05,
            at_most=True,
            note=note,
            data={"steps": [early, *late]},
        )
    ]
