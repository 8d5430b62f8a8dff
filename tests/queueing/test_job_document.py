"""The kind of job that docs/jobs.md shows can be registered, submitted and called as it is written."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queueing.jobs.kinds import KINDS, JobFailed, JobRetry
from queueing.jobs.running import RunningJob
from queueing.jobs.work import JobWork
from registry.data import database
from tests.conftest import Api
from tests.queueing.test_jobs import get, submit

TEXT = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()


@pytest.fixture
def shown() -> Iterator[dict[str, Any]]:
    """What the document's module defines."""
    found: dict[str, Any] = {"__name__": "shop.jobs"}
    [block] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(block, found)
    yield found
    del KINDS["shop.letters"]


async def test_the_kind_in_the_document_is_submitted_and_does_what_it_says(api: Api, shown: dict[str, Any]) -> None:
    job = await submit(api, kind="shop.letters", input={"to": ["a@b.c"], "password": "hush"})
    refusal = await submit(api, status=422, kind="shop.letters", input={"from": "me"})
    work = JobWork()
    async with database.own_connection():
        [claim] = await work.claim(1, 10)
        context = RunningJob(claim, lease=work.lease)
        await work.close()

    assert shown["send"](context, shown["Letters"](to=["a@b.c"])) == {"sent": 1}
    assert context.take_progress() == (1, 1, "sent")
    with pytest.raises(JobFailed):
        shown["send"](context, shown["Letters"](to=[]))
    with pytest.raises(JobRetry):
        shown["send"](context, shown["Letters"](to=["nobody"]))
    assert [error["field"] for error in refusal["errors"]] == ["input.from", "input.to"]
    assert (await get(api, f"/jobs/{job['id']}"))["input"] == {"to": ["a@b.c"], "password": "•••"}


def test_every_option_of_a_kind_is_explained() -> None:
    options = re.findall(r"`(\w+)`", re.search(r"\| option \|.*?\n\n", TEXT, re.DOTALL)[0])  # type: ignore[index]

    fields = {
        "runs",
        "scope",
        "attempts",
        "timeout",
        "concurrency",
        "tenant_concurrency",
        "rate",
        "memory",
        "public",
        "secret",
    }
    assert fields <= set(options)
