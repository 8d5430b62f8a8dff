"""Webhook messages as Registry sends them, for tests of an application's receiver."""

import time
from typing import Any
from uuid import uuid4

import msgspec

from registry_client.testing.wire import iso, now
from registry_client.webhooks import sign


def signed(
    secret: str, type: str, data: Any, *, message_id: str | None = None, sent_at: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a message. `data` is JSON, or an object of this package, such as a Payment."""
    body = msgspec.json.encode({"type": type, "timestamp": iso(now()), "data": data})
    message_id, at = message_id or f"msg_{uuid4().hex}", int(time.time() if sent_at is None else sent_at)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(secret, message_id, at, body),
        "content-type": "application/json",
    }
    return body, headers
