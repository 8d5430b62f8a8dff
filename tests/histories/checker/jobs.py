"""Background jobs: each that was accepted succeeds, and none runs twice at once (tests/chaos/executions.py)."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos import executions
from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History
from tests.histories.entries import Ran, StoredJob

SUCCEEDED = "succeeded"


def jobs(history: History) -> Iterator[Fault]:
    stored = {one.job: one.status for one in history.of(StoredJob)}
    accepted = _accepted(history)
    names = {job for several in accepted.values() for job in several}
    yield from of(
        Kind.JOBS, (f"key {key} is {sorted(several)}" for key, several in accepted.items() if len(several) > 1)
    )
    yield from of(Kind.JOBS, (f"{job} is {stored.get(job, 'lost')}" for job in names if stored.get(job) != SUCCEEDED))
    ran = executions.executions(one.moment for one in history.of(Ran))
    yield from of(Kind.JOBS, (f"{job} ran and was never submitted" for job in ran.keys() - stored.keys()))
    for words in executions.faults(ran, {job for job, status in stored.items() if status == SUCCEEDED}):
        yield Fault(Kind.JOBS, words)


def _accepted(history: History) -> dict[str, set[str]]:
    """Ids by the key under which they were submitted."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in history.asked("POST", "/jobs"):
        if one.status == 202:
            found[one.key].add(one.answer["id"])
    return dict(found)
