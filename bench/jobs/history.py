"""Rate of jobs with a million finished ones behind, against a database without. They alternate."""

from contextlib import ExitStack

from bench.figures import Effort, Figure, median
from bench.jobs import ours
from bench.jobs.turn import MANY, Turn, described
from bench.place import Place, place, progress

BEHIND = {Effort.QUICK: 10_000, Effort.NORMAL: 1_000_000, Effort.FULL: 5_000_000}
JOBS = {Effort.QUICK: 2_000, Effort.NORMAL: 40_000, Effort.FULL: 100_000}  # per round
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 5, Effort.FULL: 9}
FIRST = 1_000  # jobs that are really done; the others are copies of one of them
PORTION = 50_000  # jobs per statement
LEAST = 0.9

COLUMNS = """
    SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
    FROM information_schema.columns
    WHERE table_name = %s AND is_generated = 'NEVER' AND column_name <> ALL(%s)
"""
# A job that succeeded, with its events and its result, copied `count` times; the events are numbered on.
COPY = """
WITH sample AS (
    SELECT * FROM queueing_job WHERE closed = 'succeeded' ORDER BY id LIMIT 1
), made AS (
    INSERT INTO queueing_job (uuid, {job}) SELECT gen_random_uuid(), {job} FROM sample, generate_series(1, %(count)s)
    RETURNING tenant_id, id
), results AS (
    INSERT INTO queueing_jobresult (job_id, {result})
    SELECT made.id, {result_of} FROM made, queueing_jobresult r, sample
    WHERE r.tenant_id = sample.tenant_id AND r.job_id = sample.id
), copies AS (
    SELECT e.*, made.id AS copy, row_number() OVER (ORDER BY made.id, e.sequence) AS number
    FROM made, queueing_jobevent e, sample WHERE e.tenant_id = sample.tenant_id AND e.job_id = sample.id
), numbered AS MATERIALIZED (
    SELECT queueing_job_number(tenant_id, 0) AS last FROM sample
)
INSERT INTO queueing_jobevent (job_id, position, {event}) SELECT copy, last + number, {event} FROM copies, numbered
"""


def run(effort: Effort) -> list[Figure]:
    jobs = JOBS[effort]
    with ExitStack() as stack:
        empty, behind = (stack.enter_context(place(f"jobs_history_{n}")) for n in range(2))
        bars = stack.enter_context(progress())
        for here in (empty, behind):
            ours.with_kinds(here)
            ours.turn(here, MANY, FIRST)
        bar = bars.add_task(f"{BEHIND[effort]:,} finished jobs", total=BEHIND[effort])
        for _ in range(0, BEHIND[effort], PORTION):
            copy(behind, min(PORTION, BEHIND[effort]))
            bars.advance(bar, PORTION)
        clean(behind)
        turns: dict[str, list[Turn]] = {empty.name: [], behind.name: []}
        bars.update(bar, description="with and without them", total=2 * ROUNDS[effort], completed=0)
        for n in range(ROUNDS[effort]):
            for here in (empty, behind) if n % 2 else (behind, empty):
                turns[here.name].append(ours.turn(here, MANY, jobs))
                bars.advance(bar)
    return [figure(turns[empty.name], turns[behind.name], BEHIND[effort])]


def copy(here: Place, count: int) -> None:
    columns = {
        "job": here.ask(COLUMNS, ("queueing_job", ["id", "uuid"])),
        "result": here.ask(COLUMNS, ("queueing_jobresult", ["job_id"])),
        "event": here.ask(COLUMNS, ("queueing_jobevent", ["job_id", "position"])),
    }
    columns["result_of"] = ", ".join(f"r.{name}" for name in columns["result"].split(", "))
    with here.connect() as connection:
        connection.execute(COPY.format(**columns), {"count": count})


def clean(here: Place) -> None:
    """What autovacuum has done by the time that so many jobs have come and gone."""
    with here.connect() as connection:
        connection.execute("VACUUM (ANALYZE) queueing_job, queueing_jobevent, queueing_jobresult")


def figure(empty: list[Turn], behind: list[Turn], count: int) -> Figure:
    ratios = [one.rate / other.rate for one, other in zip(behind, empty, strict=True)]
    note = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds; with them {described(behind)}; without {described(empty)}"
    return Figure(f"jobs with {count:,} finished ones behind, against without", median(ratios), "×", LEAST, note=note)
