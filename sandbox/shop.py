"""Webhook receiver of the demo: a shop that stores and shows the latest messages.

It is not part of Stripe. It does what docs/webhooks.md asks of a receiver: it verifies the signature (Standard Webhooks), counts
a message once by its id, and responds early.
"""

import json
from collections import deque
from datetime import UTC, datetime
from html import escape
from typing import Any

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from sandbox.html import page
from sandbox.wire import Answer, Request

PAGE, HOOK = "/sandbox/shop", "/sandbox/shop/hook"
KEPT = 100  # messages
REFRESH = '<meta http-equiv="refresh" content="3">'


class Delivered(msgspec.Struct, frozen=True):
    """A received message."""

    at: datetime
    id: str
    type: str
    about: str


class Shop:
    """Stores messages, each `webhook-id` once. With a `secret` it refuses those that are not signed by it, or too old."""

    def __init__(self) -> None:
        self.messages: deque[Delivered] = deque(maxlen=KEPT)
        self.secret = ""

    def answer(self, request: Request) -> Answer | None:
        """Receive a message or show the page; None for another path."""
        if request.path == HOOK and request.method == "POST":
            return self._take(request)
        return self._show() if request.path == PAGE and request.method == "GET" else None

    def _take(self, request: Request) -> Answer:
        name = request.headers.get("webhook-id", "")
        if self.secret:
            try:
                Webhook(self.secret).verify(request.body, dict(request.headers))
            except WebhookVerificationError as error:
                return Answer(401, json.dumps({"error": str(error)}).encode(), {"content-type": "application/json"})
            except ValueError:
                pass  # signed, but not JSON: see below
        try:
            body: dict[str, Any] = json.loads(request.body)
            data = body["data"]
            about = f"{data.get('amount', '')} {data.get('currency', '')}".strip()
            message = Delivered(datetime.now(UTC), name, str(body["type"]), about)
        except (ValueError, KeyError, TypeError, AttributeError):
            return Answer(400, b'{"error":"not a message of a payment service"}', {"content-type": "application/json"})
        if not any(known.id == name for known in self.messages):
            self.messages.appendleft(message)
        return Answer(204, b"")

    def _show(self) -> Answer:
        rows = "".join(
            f"<li><b>{escape(one.type)}</b> {escape(one.about)}<br><small>{one.at:%H:%M:%S} UTC, {escape(one.id)}</small></li>"
            for one in self.messages
        )
        listed = f"<ol reversed>{rows}</ol>" if rows else "<p>Nothing yet.</p>"
        text = f"<p>Webhooks received by this shop, newest first.</p>{listed}"
        return page("The demo's shop", text, head=REFRESH)
