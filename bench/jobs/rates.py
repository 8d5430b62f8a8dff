"""Jobs per second through enqueue, claim and finish: ours and PgQueuer's in turn, on one PostgreSQL, with one worker each.

Every job is claimed, done and finished as one of its own, and a failure fails alone; commits may be shared. The functions do nothing.
"""

from bench.figures import Effort, Figure, median
from bench.jobs import ours, pgqueuer
from bench.jobs.turn import HTTP, MANY, ONE, Turn, Way, described
from bench.place import Place, place, progress, web

JOBS = {
    Effort.QUICK: {ONE: 500, MANY: 4_000, HTTP: 2_000},
    Effort.NORMAL: {ONE: 10_000, MANY: 40_000, HTTP: 40_000},
    Effort.FULL: {ONE: 30_000, MANY: 200_000, HTTP: 200_000},
}
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 5, Effort.FULL: 9}
WARM_UP = 0.1  # of a round's jobs
WANTED = 1.0  # times PgQueuer's rate
WANTED_HTTP = 0.7  # times our own rate in the process, 1,000 per call

type Turns = dict[tuple[str, Way], list[Turn]]


def run(effort: Effort) -> list[Figure]:
    with place("jobs") as here, place("jobs_pgqueuer", migrated=False) as there, progress() as bars:
        ours.with_kinds(here)
        turns: Turns = {}
        bar = bars.add_task("", total=5 * (ROUNDS[effort] + 1))
        for n in range(ROUNDS[effort] + 1):
            for side, way in order(n):
                bars.update(bar, description=f"{side}, {way.name}")
                jobs = JOBS[effort][way]
                turn = one(here, there, side, way, jobs if n else int(jobs * WARM_UP))  # the first round is a warm-up
                if n:
                    turns.setdefault((side, way), []).append(turn)
                bars.advance(bar)
    return figures(turns)


def order(n: int) -> list[tuple[str, Way]]:
    """Who goes first changes with each round."""
    pairs = [(side, way) for way in (ONE, MANY) for side in (("ours", "PgQueuer") if n % 2 else ("PgQueuer", "ours"))]
    return [*pairs, ("ours", HTTP)]


def one(here: Place, there: Place, side: str, way: Way, jobs: int) -> Turn:
    if side == "PgQueuer":
        return pgqueuer.turn(there, way, jobs)
    if way is not HTTP:
        return ours.turn(here, way, jobs)
    with web(here) as process:
        return ours.turn(here, way, jobs, process)


def figures(turns: Turns) -> list[Figure]:
    return [
        *(
            against(turns, ("ours", way), ("PgQueuer", way), f"jobs against PgQueuer, {way.name}")
            for way in (ONE, MANY)
        ),
        against(turns, ("ours", HTTP), ("ours", MANY), f"jobs {HTTP.name}, against {MANY.name}", WANTED_HTTP),
        *(
            rate_of(side, way, several)
            for (side, way), several in sorted(turns.items(), key=lambda item: item[0][1].name)
        ),
    ]


def against(
    turns: Turns, subject: tuple[str, Way], other: tuple[str, Way], what: str, wanted: float = WANTED
) -> Figure:
    pairs = zip(turns[subject], turns[other], strict=True)
    ratios = [one.rate / two.rate for one, two in pairs]
    note = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"
    return Figure(what, median(ratios), "×", wanted, note=note)


def rate_of(side: str, way: Way, turns: list[Turn]) -> Figure:
    return Figure(f"{side}, {way.name}", median([turn.rate for turn in turns]), "/s", note=described(turns))
