"""A shop that is told of payments by webhook, so that the demo's deliveries arrive somewhere: it keeps and shows the latest.

No part of Stripe. What a receiver should do besides (check the signature, answer early, take nothing twice) docs/ tell.
"""

import json
from collections import deque
from datetime import UTC, datetime
from html import escape
from typing import Any

import msgspec

from sandbox.html import page
from sandbox.wire import Answer, Request

PAGE, HOOK = "/sandbox/shop", "/sandbox/shop/hook"
KEPT = 100  # messages
REFRESH = '<meta http-equiv="refresh" content="3">'


class Told(msgspec.Struct, frozen=True):
    """A message as it arrived."""

    at: datetime
    id: str
    type: str
    about: str


class Shop:
    """Takes every message, the same one once."""

    def __init__(self) -> None:
        self.told: deque[Told] = deque(maxlen=KEPT)

    def answer(self, request: Request) -> Answer | None:
        """None where there is no such page."""
        if request.path == HOOK and request.method == "POST":
            return self._take(request)
        return self._show() if request.path == PAGE and request.method == "GET" else None

    def _take(self, request: Request) -> Answer:
        name = request.headers.get("webhook-id", "")
        try:
            body: dict[str, Any] = json.loads(request.body)
            data = body["data"]
            about = f"{data.get('amount', '')} {data.get('currency', '')}".strip()
            message = Told(datetime.now(UTC), name, str(body["type"]), about)
        except (ValueError, KeyError, TypeError, AttributeError):
            return Answer(400, b'{"error":"not a message of a payment service"}', {"content-type": "application/json"})
        if not any(known.id == name for known in self.told):
            self.told.appendleft(message)
        return Answer(204, b"")

    def _show(self) -> Answer:
        rows = "".join(
            f"<li><b>{escape(one.type)}</b> {escape(one.about)}<br><small>{one.at:%H:%M:%S} UTC, {escape(one.id)}</small></li>"
            for one in self.told
        )
        listed = f"<ol reversed>{rows}</ol>" if rows else "<p>Nothing yet.</p>"
        text = f"<p>What this shop was told by webhook, the newest first.</p>{listed}"
        return page("The demo's shop", text, head=REFRESH)
