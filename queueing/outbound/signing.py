"""An endpoint's signing secrets: encrypted at rest, several during a rotation. registry.http.signatures signs with them."""

import base64
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from registry.tenants import encryption

BYTES = 32  # of a secret; the specification wants 24 to 64
BOTH_SIGN = timedelta(hours=24)  # after a rotation the former secret signs for that long
KEPT = 5  # secrets at most, the newest: each makes the header longer


def new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Secrets:
    """An endpoint's secrets, newest first: (text, when it stops signing; None for the newest)."""

    held: tuple[tuple[str, datetime | None], ...]

    @classmethod
    def fresh(cls, secret: str = "") -> "Secrets":
        """One secret: a new one unless given."""
        return cls(((secret or new_secret(), None),))

    @classmethod
    def unsealed(cls, sealed: bytes | memoryview, *, place: str) -> "Secrets":
        entries: list[dict[str, Any]] = encryption.unseal(sealed, place=place).get("secrets", [])
        return cls(tuple((e["secret"], _moment(e["until"])) for e in entries))

    def sealed(self, *, place: str) -> bytes:
        entries = [{"secret": text, "until": until.timestamp() if until else None} for text, until in self.held]
        return encryption.seal({"secrets": entries}, place=place)

    def rotated(self, now: datetime, secret: str = "") -> "Secrets":
        """With a new secret first, made here unless given; the former one signs for BOTH_SIGN more."""
        before = [(text, until or now + BOTH_SIGN) for text, until in self.held]
        kept = [(text, until) for text, until in before if until > now]
        return Secrets(((secret or new_secret(), None), *kept[: KEPT - 1]))

    @property
    def newest(self) -> str:
        return self.held[0][0]

    def signing(self, now: datetime) -> list[str]:
        return [text for text, until in self.held if until is None or until > now]


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
