"""The data folder of a service whose history is recorded: with a processor that can refund, and a key that may do everything."""

import json
from pathlib import Path

import aiohttp

from tests.bed import template
from tests.bed.stripe import SECRET_KEY, WEBHOOK_SECRET
from tests.bed.template import TENANT
from tests.chaos.service import Service
from tests.histories.payers import CARD

ADMIN = "admin.json"  # the key, in the folder
EVENTS = ["payment.*", "refund.*"]
ANYWHERE = "http://127.0.0.1:1"  # until the service starts


def fill(folder: Path) -> None:
    template.copy_of("history", _make, folder)


def _make(folder: Path) -> None:
    template.fill(folder)
    secrets = f"secretKey={SECRET_KEY}", f"webhookSecret={WEBHOOK_SECRET}"
    card = ["--kind", "stripe", "--url", ANYWHERE, "--fee", "0.5", "--option", *secrets]
    commands = [["processor", "add", TENANT, CARD, *card], ["apikey", "create", TENANT, "--scope", "admin", "--json"]]
    (folder / ADMIN).write_text(template.call_commands(folder, commands).splitlines()[-1])


async def add_endpoint(service: Service, url: str) -> None:
    """A receiver of webhooks that wants the events of each payment in their order."""
    key = json.loads((service.data / ADMIN).read_text())["apiKey"]
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
        body = {"url": url, "events": EVENTS, "ordered": True}
        async with session.post("/webhook-endpoints", json=body) as response:
            assert response.status == 201, await response.text()
