"""docs/quickstart.md: its commands in their order, and its two shops, against the real service."""

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from django.core.management import CommandError, call_command

from queueing.outbound.testkit import checks
from queueing.outbound.work import DeliveryWork
from tests.conftest import Api, at_work, eventually, make_key
from tests.factories import in_thread, make_processor
from tests.payments.refunding import draining
from tests.settling import settle_due
from tests.test_documents import FAILING, bash, blocks

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs" / "quickstart"
PAGE = "docs/quickstart.md"
CREATE, REGISTER = "http://127.0.0.1:8000/payments ", "http://127.0.0.1:8000/webhook-endpoints "
BUY, KIT = "curl -i -X POST http://127.0.0.1:5000/buy", "manage.py webhook test "
STARTS = {"python": "docs/quickstart/shop.py", "node": "docs/quickstart/shop.mjs"}


def block(*parts: str) -> str:
    """The only block of the page with all of these parts."""
    [found] = [text for file, text in blocks() if file == PAGE and all(part in text for part in parts)]
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Shop:
    """One of the shops in a process of its own, started by the page's command; and what its owner does by the page's commands."""

    def __init__(self, language: str, server: str, key: str, folder: Path) -> None:
        self.language, self.server, self.key, self.folder = language, server, key, folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.secret = ""
        self.process: subprocess.Popen[bytes] | None = None

    def here(self, text: str) -> str:
        return text.replace("http://127.0.0.1:8000", self.server).replace("http://127.0.0.1:5000", self.url)

    async def runs(self, text: str) -> str:
        done = await bash(f"REGISTRY_KEY={self.key}\n{FAILING}{self.here(text)}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def registers(self) -> None:
        self.secret = re.search(r'"secret":"(whsec_[^"]+)"', await self.runs(block("curl ", REGISTER)))[1]

    async def starts(self) -> None:
        [command] = [line for line in block(STARTS[self.language]).splitlines() if STARTS[self.language] in line]
        program, path = command.split()
        words = [sys.executable if program.endswith("python") else program, str(PROJECT / path)]
        own = {"REGISTRY": self.server, "SHOP": self.url, "REGISTRY_KEY": self.key, "WEBHOOK_SECRET": self.secret}
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT / "client" / "src"), **own}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, cwd=self.folder, env=environ, stdout=log, stderr=log)
        await eventually(self._answers)

    async def _answers(self) -> bool:
        assert self.process and self.process.poll() is None, self.log
        try:
            async with aiohttp.ClientSession() as session, session.get(self.url) as response:
                return response.status == 404
        except aiohttp.ClientConnectionError:
            return False

    def dies(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    async def sells(self) -> str:
        """Somebody buys by the page's command. Returns the address of the payment page."""
        answer = await self.runs(block(BUY))
        assert re.match(r"HTTP/1.[01] 303 ", answer), answer
        return re.search(r"^location: (\S+)", answer, re.M | re.I)[1]

    async def gets(self, address: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            return response.status, await response.text()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def shipped(self) -> list[str]:
        return re.findall(r"^ship order (\S+)$", self.log, re.M)


@pytest.fixture(params=["python", "node"])
async def shop(request: pytest.FixtureRequest, server: str, tenant, tmp_path: Path) -> AsyncIterator[Shop]:
    if request.param == "node" and shutil.which("node") is None:
        pytest.skip("node is not on PATH: the quickstart's shop in Node was not run")
    await in_thread(make_processor, tenant)
    found = Shop(request.param, server, await make_key(tenant, "read", "write", "admin"), tmp_path)
    await found.registers()
    await found.starts()
    yield found
    found.dies()


@asynccontextmanager
async def delivering() -> AsyncIterator[None]:
    """Workers of payments and webhooks."""
    async with at_work(), draining(DeliveryWork()):
        yield


async def test_the_shop_sends_its_payer_to_the_payment_page_and_ships_once(shop: Shop):
    async with delivering():
        page = await shop.sells()
        order = urlsplit(page).path.split("/")[2]
        await eventually(lambda: shop.shipped)

    status, text = await shop.gets(page)
    assert (status, f'href="{shop.url}/orders/{order}"' in text) == (200, True)
    status, text = await shop.gets(f"{shop.url}/orders/{order}")
    assert (status, "payment succeeded" in text) == (200, True)
    assert shop.log.splitlines() == [f"ship order {order}"]  # nothing else hides it


async def test_a_payer_who_comes_back_before_the_webhook_gets_the_goods_once(shop: Shop):
    order = urlsplit(await shop.sells()).path.split("/")[2]
    unpaid = await shop.gets(f"{shop.url}/orders/{order}")
    assert ("payment queued" in unpaid[1], shop.shipped) == (True, [])

    await settle_due()
    await asyncio.gather(*(shop.gets(f"{shop.url}/orders/{order}") for _ in range(5)))
    assert shop.shipped == [order]
    async with Api(shop.server, shop.key) as api, delivering():
        await eventually(lambda: delivered(api))

    assert shop.shipped == [order]


async def test_a_replayed_webhook_ships_nothing_more_not_even_after_a_crash(shop: Shop):
    async with Api(shop.server, shop.key) as api:
        async with delivering():
            await shop.sells()
            await eventually(lambda: shop.shipped)
            [delivery] = await eventually(lambda: delivered(api))
        shop.dies()
        await shop.starts()
        async with api.post(f"/webhook-deliveries/{delivery['id']}/replay") as response:
            assert response.status == 202
        async with delivering():
            await eventually(lambda: delivered(api, attempts=2))

    assert len(shop.shipped) == 1


async def delivered(api: Api, *, attempts: int = 1) -> list[dict[str, Any]]:
    """The deliveries that the shop has taken, after this many attempts."""
    async with api.get("/webhook-endpoints") as response:
        [endpoint] = (await response.json())["items"]
    async with api.get(f"/webhook-endpoints/{endpoint['id']}/deliveries?status=delivered") as response:
        return [one for one in (await response.json())["items"] if one["attempts"] >= attempts]


@pytest.mark.usefixtures("lean_commands")
async def test_the_shop_passes_the_test_kit(shop: Shop):
    [command] = block(KIT).splitlines()
    words = shop.here(command).replace("whsec_…", shop.secret).split()
    out = io.StringIO()

    try:
        await in_thread(call_command, *words[words.index("webhook") :], stdout=out, stderr=out)
    except CommandError:
        pytest.fail(out.getvalue() + shop.log)

    assert out.getvalue().count("✓") == len(checks())
    assert shop.shipped == []


async def test_an_order_that_there_is_not_is_an_error_and_no_shipment(shop: Shop):
    status, _ = await shop.gets(f"{shop.url}/orders/5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11")

    assert status == 500
    assert shop.shipped == []


@pytest.mark.parametrize("language", ["python", "node"])
@pytest.mark.parametrize(
    ("known", "said"), [([], "REGISTRY_KEY: step 1"), (["REGISTRY_KEY"], "WEBHOOK_SECRET: step 3")]
)
def test_a_shop_without_its_variables_says_which_step_sets_them(
    language: str, known: list[str], said: str, tmp_path: Path
):
    program = sys.executable if language == "python" else shutil.which("node")
    if program is None:
        pytest.skip("node is not on PATH: the quickstart's shop in Node was not run")
    environ = {"PYTHONPATH": str(PROJECT / "client" / "src"), **dict.fromkeys(known, "rk_a")}

    done = subprocess.run(
        [program, PROJECT / STARTS[language]], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (1, f"set {said} of the quickstart\n")


def test_every_block_of_curl_on_the_page_is_run_here():
    assert [text for file, text in blocks() if file == PAGE and "curl " in text] == [
        block("curl ", CREATE), block("curl ", REGISTER), block(BUY)
    ]  # fmt: skip


def test_the_code_on_the_page_is_the_code_of_the_shops():
    for language, file in (("python", "shop.py"), ("js", "shop.mjs")):
        shown = [text for name, text in blocks(language) if name == PAGE]

        assert len(shown) >= 3
        assert [text for text in shown if text not in (FOLDER / file).read_text()] == []


async def test_the_first_payment_is_answered_as_the_page_shows(server: str, tenant):
    key = await make_key(tenant)
    done = await bash(f"REGISTRY_KEY={key}\n{block(CREATE).replace('http://127.0.0.1:8000', server)}")

    [shown] = [text for file, text in blocks("json") if file == PAGE]
    assert re.findall(r'"(\w+)":', done.stdout) == re.findall(r'"(\w+)":', shown)
