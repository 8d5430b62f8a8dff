"""One job of the test double: its state and its events."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from registry_client.testing.streams import FakeStream
from registry_client.testing.wire import Json, iso, now

ENDED = ("succeeded", "failed", "canceled")
FIELDS: Json = {
    "kind": None,
    "input": {},
    "priority": 0,
    "runAt": None,
    "uniqueKey": None,
    "maxAttempts": 5,
    "timeout": 60.0,
    "resultTtl": 604_800,
    "callbackUrl": None,
}


class JobFailed(Exception):
    """Raised by the function of a kind: the job fails with this code and detail."""

    def __init__(self, detail: str, *, code: str = "failed") -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


class FakeJob:
    """A job as the service keeps it."""

    def __init__(self, content: Json, stream: FakeStream) -> None:
        self.id, self.content, self._stream = str(uuid4()), {**FIELDS, **content}, stream
        self.kind: str = content["kind"]
        self.created_at = now()
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.attempts = self.sequence = 0
        self.progress: Json | None = None
        self.error: Json | None = None
        self.result: Any = None
        self.timeline: list[Json] = []
        self.move("queued")

    @property
    def is_due(self) -> bool:
        run_at = self.content["runAt"]
        return run_at is None or datetime.fromisoformat(run_at) <= now()

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    def move(self, status: str) -> None:
        """Change the status, and tell everybody who watches."""
        self.status, self.updated_at = status, now()
        self.sequence += 1
        entry = {"sequence": self.sequence, "at": iso(self.updated_at), "status": status, "detail": ""}
        self.timeline.append(entry | {"attempt": self.attempts})
        self._stream.add(self.id, self.sequence, self.body())

    def start(self) -> None:
        self.started_at = self.started_at or now()
        self.attempts += 1
        self.error = None
        self.move("running")

    def report(self, progress: Json) -> None:
        """Show progress, which the timeline leaves out."""
        self.progress, self.updated_at = progress, now()
        self.sequence += 1
        self._stream.add(self.id, self.sequence, self.body())

    def end(self, status: str, *, result: Any = None, error: Json | None = None) -> None:
        self.finished_at, self.result, self.error = now(), result, error
        self.move(status)

    def again(self) -> None:
        """Queue it again."""
        self.finished_at, self.error = None, None
        self.move("queued")

    def body(self) -> Json:
        shown: Json = {
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "attempts": self.attempts,
            "createdAt": iso(self.created_at),
            "startedAt": self.started_at and iso(self.started_at),
            "finishedAt": self.finished_at and iso(self.finished_at),
            "updatedAt": iso(self.updated_at),
            "sequence": self.sequence,
        }
        parts = {"progress": self.progress, "error": self.error}
        return shown | {name: part for name, part in parts.items() if part is not None}

    def details(self) -> Json:
        shown = {name: self.content[name] for name in FIELDS if name not in ("kind", "runAt")}
        run_at = self.content["runAt"] or iso(self.created_at)
        return {**self.body(), **shown, "runAt": run_at, "cancelRequested": False, "timeline": self.timeline}
