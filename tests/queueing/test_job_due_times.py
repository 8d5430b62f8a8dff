"""Due times of schedules: cron expressions in time zones, changes of the clock, and what is made up for after an outage."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from queueing.jobs.schedules import timing
from queueing.jobs.schedules.steps import CATCH_UP_JOBS, MISSED_AFTER, Step, step
from queueing.jobs.schedules.timing import Timing

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu",
    "America/St_Johns",
]  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def due(cron: str, zone: str, after: str, count: int) -> list[str]:
    return [one.isoformat() for one in islice(Timing(cron, zone).all_after(at(after)), count)]


# -- Changes of the clock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # 02:30 does not exist on that day: 03:00, the first moment after the gap
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        # the clock went from midnight to one o'clock
        ("30 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00-03:00", ["2018-11-04T01:00-02:00", "2018-11-05T00:30-02:00"]),
        # it occurs twice: the first time
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        ("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00-02:00", ["2018-02-17T23:30-02:00", "2018-02-18T23:30-03:00"]),
    ],
)  # fmt: skip
def test_a_schedule_at_a_fixed_time_is_due_once_on_the_day_when_the_clock_changes(
    cron: str, zone: str, after: str, expected: list[str]
) -> None:
    assert due(cron, zone, after, 2) == [at(text).astimezone(UTC).isoformat() for text in expected]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-07-01", 24)])
def test_a_schedule_of_every_hour_follows_elapsed_time(day: str, hours: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=berlin)
    end = (begin.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=berlin)

    found = list(takewhile(lambda one: one <= end, Timing("0 * * * *", "Europe/Berlin").all_after(begin)))

    assert len(found) == hours
    assert {after - before for before, after in pairwise(found)} == {timedelta(hours=1)}


def test_an_expression_with_a_star_is_due_at_both_occurrences_of_a_local_time_and_not_at_one_that_is_skipped() -> None:
    back = due("30 */2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+00:00", 3)
    forward = due("30 */2 * * *", "Europe/Berlin", "2026-03-28T23:00:00+00:00", 2)

    assert [one[11:16] for one in back] == ["00:30", "01:30", "03:30"]  # 02:30 twice, then 04:30
    assert [one[11:16] for one in forward] == ["23:30", "02:30"]  # 00:30, then 04:30


@pytest.mark.parametrize("now", ["2026-10-25T02:10+01:00", "2026-10-25T02:45+01:00"])
def test_in_the_repeated_hour_a_time_that_was_due_in_the_first_one_is_not_due_again(now: str) -> None:
    assert due("30 2 * * *", "Europe/Berlin", now, 1) == ["2026-10-26T01:30:00+00:00"]


# -- What can be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "fields"),
    [
        ("0 0 30 2 *", "UTC", ["cron"]),  # never fires
        ("* * */20 * 1L", "UTC", ["cron"]),  # nor does this: the first or the 21st cannot be a month's last Monday
        ("61 * * * *", "UTC", ["cron"]),
        ("* * * *", "UTC", ["cron"]),
        ("0 * * * * *", "UTC", ["cron"]),  # seconds
        ("@daily", "UTC", ["cron"]),
        ("* * * * *", "Mars/Base", ["timezone"]),
        ("* * * * *", "", ["timezone"]),
        ("* * * * *", "../../etc/passwd", ["timezone"]),
        ("* * * * *", "Europe", ["timezone"]),
        ("* * * * *", "right/Europe/Berlin", ["timezone"]),
        ("* * * * *", "localtime", ["timezone"]),
        ("nonsense", "Nowhere", ["timezone", "cron"]),
        ("0 9 * * MON-FRI", "Europe/Berlin", []),
        ("0 0 L * *", "America/Sao_Paulo", []),
        ("0 0 * * MON#1", "Etc/GMT+3", []),
        ("0 0 29 2 *", "UTC", []),  # every four years
    ],
)
def test_what_is_no_cron_or_no_time_zone_is_named(cron: str, zone: str, fields: list[str]) -> None:
    assert [one["field"] for one in timing.examine(Timing(cron, zone), at("2026-01-01T00:00Z"))[0]] == fields


@given(st.text(max_size=timing.LONGEST_CRON), st.text(max_size=timing.LONGEST_ZONE))
def test_no_text_is_an_error_of_ours(cron: str, zone: str) -> None:
    timing.examine(Timing(cron, zone), at("2026-01-01T00:00Z"))


# -- Outages -------------------------------------------------------------------------------------------------------


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(2, high).map(lambda n: f"*/{n}"),
        st.lists(number, min_size=1, max_size=3).map(lambda ns: ",".join(map(str, ns))),
        st.tuples(number, number).map(lambda ns: f"{min(ns)}-{max(ns)}"),
    )


CRONS = st.builds(
    lambda *fields: " ".join(fields),
    field(0, 59),
    field(0, 23),
    st.one_of(st.just("*"), field(1, 28), st.just("L")),
    st.one_of(st.just("*"), field(1, 12)),
    st.one_of(st.just("*"), field(0, 6), st.sampled_from(["MON-FRI", "SUN", "1#2", "5L"])),
)
CHANGES = [  # of the clock, in some of the zones
    at(text)
    for text in (
        "2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-03-08T07:00Z", "2026-11-01T06:00Z", "2018-11-04T03:00Z", "2018-02-18T02:00Z",
        "2026-04-04T15:00Z", "2026-10-03T15:30Z",
    )
]  # fmt: skip
BEGINNINGS = st.one_of(
    st.builds(
        lambda change, seconds: change + timedelta(seconds=seconds),
        st.sampled_from(CHANGES),
        st.integers(-100_000, 10_000),
    ),
    st.datetimes(datetime(2015, 1, 1), datetime(2040, 1, 1)).map(lambda when: when.replace(tzinfo=UTC)),
)
OUTAGES = st.one_of(st.integers(0, 7200), st.integers(0, 3 * 86_400), st.integers(0, 30 * 86_400))  # seconds
LOOKED_AT = 6000  # due times, so that an example ends soon


def as_cronsim_has_it(cron: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """All due times after `begin` until `end`, from one run of the library that begins two days earlier."""
    tz = UTC if zone == "UTC" else ZoneInfo(zone)
    every = (local.astimezone(UTC) for local in CronSim(cron, (begin - timedelta(days=2)).astimezone(tz)))
    return sorted({one for one in takewhile(lambda one: one <= end, every) if one > begin})


def handled(timing: Timing, first: datetime, now: datetime, **options: object) -> Iterator[Step]:
    """The steps of a schedule until it has caught up."""
    next_at: datetime | None = first
    while next_at is not None and next_at <= now:
        done = step(timing, first=next_at, now=now, is_open=False, **options)  # type: ignore[arg-type]
        yield done
        next_at = done.next_at


@given(CRONS, st.sampled_from(ZONES), BEGINNINGS, OUTAGES, st.sampled_from(["one", "all", "none"]))
def test_after_an_outage_due_times_are_made_up_for_as_the_schedule_says(
    cron: str, zone: str, begin: datetime, outage: int, catch_up: str
) -> None:
    now, timing = begin + timedelta(seconds=outage), Timing(cron, zone)
    expected = as_cronsim_has_it(cron, zone, begin, now)[:LOOKED_AT]
    now = min(now, expected[-1] + timedelta(seconds=outage % 120)) if len(expected) == LOOKED_AT else now
    first = timing.after(begin)
    if first is None or not expected:
        assert not expected
        assert first is None or first > now
        return

    steps = list(handled(timing, first, now, overlap="queue", catch_up=catch_up))

    wanted = {
        "all": as_cronsim_has_it(cron, zone, begin, now),
        "one": expected[-1:],
        "none": expected[-1:] if now - expected[-1] < MISSED_AFTER else [],
    }
    assert [one for done in steps for one in done.due] == wanted[catch_up]
    assert steps[-1].next_at == timing.after(now)
    assert all(len(done.due) <= CATCH_UP_JOBS for done in steps)


@given(CRONS, st.sampled_from(ZONES), BEGINNINGS, st.lists(st.integers(1, 4000), min_size=1, max_size=30))
def test_every_due_time_submits_one_job_at_whatever_moments_processes_look(
    cron: str, zone: str, begin: datetime, pauses: list[int]
) -> None:
    timing, now, submitted = Timing(cron, zone), begin, []
    next_at = timing.after(begin)
    for pause in pauses:
        now += timedelta(seconds=pause)
        steps = list(handled(timing, next_at, now, overlap="queue", catch_up="all")) if next_at else []
        submitted += [one for done in steps for one in done.due]
        next_at = steps[-1].next_at if steps else next_at

    assert submitted == as_cronsim_has_it(cron, zone, begin, now)


def test_the_latest_of_very_many_missed_due_times_is_found_in_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(timing, "CronSim", lambda *arguments: asked.append(1) or CronSim(*arguments))
    first, now = at("2026-01-01T00:00Z"), at("2036-01-01T00:00:30Z")

    done = step(
        Timing("* * * * *", "Europe/Berlin"), first=first, now=now, overlap="skip", catch_up="one", is_open=False
    )

    assert done == Step([at("2036-01-01T00:00Z")], at("2036-01-01T00:01Z"))
    assert len(asked) < 30


def test_missed_due_times_that_may_not_overlap_wait_for_each_other() -> None:
    every_hour, first, now = Timing("0 * * * *", "UTC"), at("2026-01-01T00:00Z"), at("2026-01-01T03:30Z")
    options = {"now": now, "overlap": "skip", "catch_up": "all"}

    free = step(every_hour, first=first, is_open=False, **options)  # type: ignore[arg-type]
    busy = step(every_hour, first=first, is_open=True, **options)  # type: ignore[arg-type]

    assert free == Step([first], at("2026-01-01T01:00Z"))
    assert busy == Step([], first)


def test_a_due_time_on_time_is_skipped_while_a_job_is_open() -> None:
    first, now = at("2026-01-01T00:00Z"), at("2026-01-01T00:00:01Z")

    for catch_up in ("one", "all", "none"):
        done = step(Timing("0 * * * *", "UTC"), first=first, now=now, overlap="skip", catch_up=catch_up, is_open=True)
        assert done == Step([], at("2026-01-01T01:00Z"))
