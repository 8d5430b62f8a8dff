"""`webhook test URL`: run the test kit against a receiver of webhooks."""

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from queueing.outbound import testkit
from queueing.outbound.signing import new_secret
from queueing.outbound.testkit import Result, checks
from registry.errors import Invalid
from registry.http.client import BadAddress
from registry.http.ssrf import checked
from registry.management.base import AsyncCommand, add_json


class Command(AsyncCommand):
    help = "Try a receiver of webhooks. The exit code is 0 when it behaves."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        test = verbs.add_parser("test", help="call a receiver in every way it has to stand")
        test.add_argument("url")
        test.add_argument(
            "--secret", default="", help="what it verifies with, whsec_…; without it a new one is shown first"
        )
        add_json(test)

    async def do_test(self, *, url: str, secret: str, json: bool, **_: Any) -> None:
        if secret and not testkit.is_secret(secret):
            raise CommandError("--secret wants whsec_ and base64, as the endpoint's page showed it")
        if not secret:
            secret = new_secret()
            self.stderr.write(f"The receiver must verify with {secret}")
        results = await self._results(url, secret, quiet=json)
        failed = [result for result in results if not result.passed]
        self.report(_summary(results, failed), [asdict(result) for result in results], as_json=json)
        if failed:
            raise CommandError(f"{len(failed)} of {len(checks())} checks failed", returncode=1)

    async def _results(self, url: str, secret: str, *, quiet: bool) -> list[Result]:
        results: list[Result] = []
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        try:
            await checked(url, tls_only=False)
            with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bars:
                bar = bars.add_task("calling the receiver", total=len(checks()))
                async for result in testkit.run(url, secret):
                    results.append(result)
                    bars.update(bar, advance=1, description=result.name)
        except Invalid as problem:
            raise CommandError(f"{url}: {problem.errors[0]['message']}") from problem
        except BadAddress as problem:
            raise CommandError(f"{url}: {problem}") from problem
        return results


def _summary(results: list[Result], failed: list[Result]) -> str:
    lines = [f"{'✓' if one.passed else '✕'} {one.name}: {one.happened}" for one in results]
    lines += [f"\nA good receiver, given {one.name}, {one.wanted}." for one in failed]
    if not failed:
        lines.append("\nIt behaves.")
    return "\n".join(lines)
