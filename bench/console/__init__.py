"""Pages of the console for a merchant with a million payments: home in each of its ranges, and the pages of PAGES."""

from bench.console.fill import filled
from bench.console.pages import PAGES, reader
from bench.figures import Effort, Figure, median, quantile
from bench.place import place, progress, web

SIZES = {Effort.QUICK: 20_000, Effort.NORMAL: 1_000_000, Effort.FULL: 10_000_000}
ROUNDS = {Effort.QUICK: 2, Effort.NORMAL: 8, Effort.FULL: 8}
MOST = 300  # milliseconds


def run(effort: Effort) -> list[Figure]:
    """Every page in turn, so that what a page keeps in memory is too old when it is asked for again."""
    size = SIZES[effort]
    with place("console") as here, progress() as bars:
        sample = filled(here, size, bars)
        with web(here) as process, reader(here, process.port) as read:
            pages = [(page, page.address(sample)) for page in PAGES]
            for page, address in pages:
                read(address, page)  # the first call compiles templates and plans statements
            bar = bars.add_task("reading pages", total=ROUNDS[effort] * len(pages))
            times: dict[str, list[float]] = {page.name: [] for page, _ in pages}
            for _ in range(ROUNDS[effort]):
                for page, address in pages:
                    times[page.name].append(read(address, page))
                    bars.advance(bar)
    return [figure(name, several, size) for name, several in times.items()]


def figure(name: str, times: list[float], size: int) -> Figure:
    note = f"{min(times):.0f} to {max(times):.0f} ms, {len(times)} calls"
    return Figure(
        f"{name}, {size:,} payments, p90", quantile(times, 0.9), "ms", MOST, True, f"median {median(times):.0f}, {note}"
    )
