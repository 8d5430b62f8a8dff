"""The programs on the page of API keys run as they are shown, and are those of the quickstart."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import playwright
import pytest

from registry.operators.snippets import snippets
from tests.conftest import Api

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "docs" / "quickstart.md"
NODE = shutil.which("node") or str(Path(playwright.__file__).parent / "driver" / "node")
RUN = {"curl": ["sh", "-ec"], "Python": [sys.executable, "-c"], "Node": [NODE, "--input-type=module", "-e"]}


async def output(language: str, program: str, key: str) -> str:
    environment = os.environ | {"REGISTRY_KEY": key, "PYTHONPATH": str(ROOT / "client" / "src")}
    run = await asyncio.create_subprocess_exec(
        *RUN[language], program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == 0, errors.decode()
    return out.decode()


@pytest.mark.parametrize("language", RUN)
async def test_a_program_creates_a_payment_and_names_its_page(server: str, api: Api, key: str, language: str):
    program = dict(snippets(server))[language].replace("rk_…", key)

    said = await output(language, program, key)

    page = urlsplit(re.search(r"[^\s\"]*/live\?token=[^\s\"]+", said)[0])  # type: ignore[index]
    async with api.get(f"{page.path}?{page.query}") as response:
        assert response.status == 200


@pytest.mark.skipif(not QUICKSTART.exists(), reason="this checkout has no quickstart")
def test_the_first_request_is_that_of_the_quickstart():
    shown = dict(snippets("http://127.0.0.1:8000"))["curl"].partition("\n")[2]

    assert shown in QUICKSTART.read_text()
