"""A processor of the bed in a process of its own, with the same methods: for tests whose loop is blocked or killed."""

import http.client
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.bed.processor import TOKEN, TROUBLES

ANSWER_LIMIT = 60.0  # seconds for an administrative call: after hours its books are large
STOP_LIMIT = 5.0  # seconds from SIGTERM to SIGKILL
ROOT = Path(__file__).parents[2]


class RemoteProcessor:
    """`with RemoteProcessor() as default:` then `default.url`, `default.delays(100)`, `default.booked`."""

    def __init__(
        self, *, port: int = 0, fee: float = 0.05, host: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        """`within`: a command that runs it, in another network for example."""
        self.host, self.port = host, port
        self.fee = fee
        self.within = within

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [
                *self.within,
                sys.executable,
                "-m",
                "tests.bed",
                str(self.port),
                "--fee",
                str(self.fee),
                "--host",
                self.host,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=bool(self.within),
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line.startswith("ready "):
            self.stop()
            raise RuntimeError(f"the processor did not start: {line!r}")
        self.port = int(line.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __getattr__(self, name: str) -> Any:
        if name not in TROUBLES:
            raise AttributeError(name)
        return lambda *arguments, **options: self.ask(
            "POST", "trouble", {"name": name, "arguments": arguments, "options": options}
        )

    @property
    def report(self) -> dict[str, Any]:
        return self.ask("GET", "books")

    @property
    def received(self) -> list[str]:
        return self.report["received"]

    @property
    def booked(self) -> dict[str, tuple[int, str]]:
        """Correlation id → (amount in minor units, requestedAt as text)."""
        return {name: (amount, moment) for name, (amount, moment) in self.report["booked"].items()}

    @property
    def ids(self) -> set[str]:
        return set(self.ask("GET", "ids"))

    def summary(self, **window: str) -> dict[str, Any]:
        """`summary()` or `summary(**{"from": …, "to": …})`."""
        return self.ask("GET", "payments-summary" + (f"?{urlencode(window)}" if window else ""))

    def ask(self, method: str, name: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_LIMIT)
        try:
            connection.request(
                method, f"/admin/{name}", None if body is None else json.dumps(body), {"X-Rinha-Token": TOKEN}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {name}: {answer.status} {text!r}")
        return json.loads(text)
