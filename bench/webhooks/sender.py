"""Stripe's side: signed events in a closed loop, as fast as they are taken. In a process of its own, on uvloop."""

import hmac
import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

import uvloop

from bench.load import Load, Run

SECRET = b"whsec_bench"

# As large as a payment intent's event is that nobody expanded, and indented as Stripe sends it.
OBJECT: dict[str, Any] = {
    "id": "pi_3Q0aXl2eZvKYlo2C1gKpQ7Zx",
    "object": "payment_intent",
    "amount": 1990,
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 1990,
    "application": None,
    "application_fee_amount": None,
    "automatic_payment_methods": {"allow_redirects": "never", "enabled": True},
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic",
    "client_secret": "pi_3Q0aXl2eZvKYlo2C1gKpQ7Zx_secret_0123456789abcdefghijklmno",
    "confirmation_method": "automatic",
    "created": 1790000000,
    "currency": "brl",
    "customer": "cus_QmYyv3cQ4yZ0aB",
    "description": "Two books and a map",
    "last_payment_error": None,
    "latest_charge": "ch_3Q0aXl2eZvKYlo2C1nDqNvKk",
    "livemode": False,
    "next_action": None,
    "on_behalf_of": None,
    "payment_method": "pm_1Q0aXk2eZvKYlo2CGm3t7sQf",
    "payment_method_configuration_details": None,
    "payment_method_options": {
        "card": {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
    },
    "payment_method_types": ["card"],
    "processing": None,
    "receipt_email": "payer@example.com",
    "setup_future_usage": None,
    "shipping": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": "succeeded",
    "transfer_data": None,
    "transfer_group": None,
}
EVENT: dict[str, Any] = {
    "object": "event",
    "api_version": "2026-01-28.clover",
    "created": 1790000001,
    "livemode": False,
    "pending_webhooks": 1,
    "request": {"id": "req_JpX0m2vT5y9wQz", "idempotency_key": "0d9f6b3c-6c0a-4b39-9b3e-3f7c6f1f9d55"},
    "type": "payment_intent.succeeded",
}


def event(metadata: dict[str, str] | None = None) -> bytes:
    """A new event's body."""
    thing = {**OBJECT, "metadata": metadata or {"order": "6735"}}
    return json.dumps({"id": f"evt_{os.urandom(12).hex()}", **EVENT, "data": {"object": thing}}, indent=2).encode()


def signed(body: bytes) -> str:
    """The header Stripe-Signature."""
    now = b"%d" % time.time()
    return f"t={now.decode()},v1={hmac.digest(SECRET, now + b'.' + body, 'sha256').hex()}"


class Signing(Run):
    """Every request has a head of its own: its signature stands there."""

    def __init__(self, load: Load) -> None:
        # Only the id differs: making a whole body for each would take the service's time on a small machine.
        self.before, _, self.after = event().partition(b'"evt_')
        self.after = self.after[24:]
        super().__init__(load)
        self.head = b""

    def body(self) -> bytes:
        body = b'%b"evt_%b%b' % (self.before, os.urandom(12).hex().encode(), self.after)
        return (
            f"POST {self.load.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.load.port}\r\nContent-Type: application/json\r\n"
            f"User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nStripe-Signature: {signed(body)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


if __name__ == "__main__":
    import gc

    gc.disable()  # as in bench.load
    print(json.dumps(asdict(uvloop.run(Signing(Load(**json.loads(sys.argv[1]))).go()))))
