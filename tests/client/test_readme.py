"""The blocks of client/README.md, run as they are written, in a process of their own, against the service."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from registry_client.testing import signed
from tests.client.working import jobs_at_work
from tests.conftest import at_work
from tests.factories import in_thread, make_processor

CLIENT = Path(__file__).parents[2] / "client"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (CLIENT / "README.md").read_text(), re.M | re.S)
ADDRESS, KEY, SECRET = "http://127.0.0.1:8000", "rk_…", "whsec_…"
A_SECRET = "whsec_" + "YWFh" * 8


def title(block: str) -> str:
    return block.splitlines()[0].strip("# ")[:40]


@pytest.mark.parametrize("block", BLOCKS, ids=title)
async def test_a_block_of_the_readme_runs_and_prints_what_it_says(block: str, server: str, key: str, tenant):
    await in_thread(make_processor, tenant, "default", options={"delay": 0})
    body, headers = signed(A_SECRET, "payment.succeeded", STATUS, message_id=STATUS["correlationId"])
    script = block.replace(ADDRESS, server).replace(KEY, key).replace(SECRET, A_SECRET)
    given = f"body, headers = {body!r}, {headers!r}\n" if "(body, headers)" in block else ""

    async with at_work(), jobs_at_work():
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", given + script], capture_output=True, text=True, timeout=60,
            cwd="/", env={"PYTHONPATH": str(CLIENT / "src")},
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    wanted = re.findall(r"^ *print\(.*  # (.*)$", block, re.M)
    assert done.stdout.splitlines() == wanted


STATUS = {
    "correlationId": "5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11",
    "status": "succeeded",
    "amount": "19.90",
    "currency": "BRL",
    "processor": "default",
    "attempts": 1,
    "updatedAt": "2026-12-01T12:00:00.000Z",
    "sequence": 3,
}


def test_there_is_a_block_for_every_part():
    words = ("Client", "AsyncClient", "watch", "consume", "verify", "check", "FakeRegistry", "jobs", "schedules")

    assert [word for word in words if not any(word in block for block in BLOCKS)] == []
