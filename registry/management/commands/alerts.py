"""`alerts`: list the alerts that are open; `--test` sends a test message to every channel; `--export` writes files for Prometheus."""

import asyncio
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from registry.data import clock
from registry.edge.api import iso
from registry.management.base import AsyncCommand, add_json
from registry.operators.alerts import exports, home, messages, sending
from registry.operators.alerts.home import OpenAlert
from registry.operators.attention import Severity


class Command(AsyncCommand):
    help = "List the alerts that are pending or firing, try their channels, or export their rules for Prometheus and Grafana."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--test", action="store_true", help="send a test message to ALERT_EMAIL and ALERT_WEBHOOK_URL"
        )
        parser.add_argument(
            "--export",
            type=Path,
            metavar="FOLDER",
            help="write the rules for Prometheus and a dashboard for Grafana there",
        )
        parser.add_argument("--url", help="of this service, in links to the runbook; REGISTRY_URL by default")
        add_json(parser)

    async def run(self, *, test: bool, export: Path | None, url: str | None, json: bool, **_: Any) -> None:
        if export:
            await self._export(export, url or settings.REGISTRY_URL, json)
        else:
            await (self._test(json) if test else self._list(json))

    async def _export(self, folder: Path, url: str, as_json: bool) -> None:
        try:
            written = await asyncio.to_thread(exports.write, folder, url)
        except OSError as error:
            raise CommandError(f"the files cannot be written into {folder}: {error.strerror}") from error
        paths = [str(path) for path in written]
        self.report("\n".join(f"{path} written" for path in paths), paths, as_json=as_json)

    async def _list(self, as_json: bool) -> None:
        found = await home.open_alerts()
        lines = [
            f"{Severity(one.alert.severity).name.lower():9}{one.alert}: {one.state}. {one.sentence}" for one in found
        ]
        self.report(
            "\n".join(lines) or "No alert is pending or firing.", [_json(one) for one in found], as_json=as_json
        )

    async def _test(self, as_json: bool) -> None:
        made = messages.test(clock.now())
        if not made:
            raise CommandError(
                "no channel is set: ALERT_EMAIL with EMAIL_URL, or ALERT_WEBHOOK_URL with ALERT_WEBHOOK_SECRET"
            )
        for message in made:
            await sending.attempt(message)
        lines = [f"{message.channel}: {message.error or 'sent'}" for message in made]
        data = [{"channel": message.channel, "error": message.error or None} for message in made]
        self.report("\n".join(lines), data, as_json=as_json)
        if any(message.error for message in made):
            raise SystemExit(1)


def _json(one: OpenAlert) -> dict[str, Any]:
    alert = one.alert
    return {
        "rule": alert.rule,
        "host": alert.host or None,
        "status": alert.status,
        "unknown": one.is_unknown,
        "severity": Severity(alert.severity).name.lower(),
        "sentence": alert.sentence,
        "value": alert.value,
        "samples": alert.samples,
        "since": iso(alert.since),
        "silencedUntil": iso(one.silence.ends_at) if one.silence else None,
    }
