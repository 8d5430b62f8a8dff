"""Messages of webhooks: their ids and bodies, as Standard Webhooks defines them."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from registry.edge.api import ENCODER, iso


def new_message_id() -> str:
    """A `webhook-id`: one per event, the same at every attempt and replay and for every endpoint."""
    return f"msg_{uuid4().hex}"


def message_body(type: str, at: datetime, data: dict[str, Any]) -> str:
    """The JSON body that is signed and sent: the same bytes at every attempt."""
    return ENCODER.encode({"type": type, "timestamp": iso(at), "data": data}).decode()
