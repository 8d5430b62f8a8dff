"""A shop that takes payments by Registry, in Python: docs/quickstart.md explains it.

POST /buy creates an order and sends the payer to the payment page, GET /orders/ID is where the payer comes back, POST /hook
receives Registry's webhooks. Needs registry-client (client/); orders are in shop.db.
"""

import os
import re
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin, urlsplit
from uuid import UUID, uuid4

from registry_client import Client, Payment, PaymentEvent, PaymentStatus, Webhook, WebhookRefused

REGISTRY = os.environ.get("REGISTRY", "http://127.0.0.1:8000")
SHOP = os.environ.get("SHOP", "http://127.0.0.1:5000")  # how payers and Registry reach this shop
PROCESSOR = os.environ.get("PROCESSOR")  # none: Registry chooses
PRICE = "19.90"  # from the shop's own data, never from the browser
LARGEST = 65_536  # bytes of a webhook


def given(name: str, step: int) -> str:
    """A variable of the environment that a step of the quickstart sets."""
    return os.environ.get(name) or sys.exit(f"set {name}: step {step} of the quickstart")


client = Client(REGISTRY, given("REGISTRY_KEY", 1))
webhook = Webhook(given("WEBHOOK_SECRET", 3))


def run(statement: str, *values: str) -> int:
    """Run one SQL statement in a transaction of its own; the number of rows that it changed."""
    with sqlite3.connect("shop.db", timeout=10) as database:
        return database.execute(statement, values).rowcount


run("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, amount TEXT NOT NULL, shipped_at TEXT)")


# -- 1. Create a payment ---------------------------------------------------------------------------------------


def buy() -> str:
    """Create an order and its payment. Returns the address of the payment page."""
    order = uuid4()  # also the payment's id: sending it again cannot pay twice
    run("INSERT INTO orders (id, amount) VALUES (?, ?)", str(order), PRICE)
    payment = client.payments.submit(
        PRICE,
        correlation_id=order,
        description="Two glasses",
        return_url=f"{SHOP}/orders/{order}",
        processor=PROCESSOR,
    )
    return urljoin(REGISTRY, payment.live_url)


# -- 2. Verify the webhook -------------------------------------------------------------------------------------


def hook(body: bytes, headers: dict[str, str]) -> int:
    """Handle a webhook. Returns the status to respond: 2xx is "received", anything else means "send it again"."""
    try:
        event = webhook.verify(body, headers)  # the raw body, before any JSON parser has changed it
    except WebhookRefused:
        return 400
    if isinstance(event, PaymentEvent):
        ship_if_paid(event.data)
    return 204  # also for types that this shop does not know


# -- 3. Ship exactly once --------------------------------------------------------------------------------------


def ship_if_paid(payment: Payment) -> None:
    """Ship the order, unless it was shipped before. Webhooks come late, twice and in any order: the database decides."""
    if payment.status is not PaymentStatus.SUCCEEDED:
        return
    shipped = run(
        "UPDATE orders SET shipped_at = datetime('now') WHERE id = ? AND amount = ? AND shipped_at IS NULL",
        str(payment.correlation_id),
        str(payment.amount),
    )
    if shipped:
        print(f"ship order {payment.correlation_id}", flush=True)


# -- 4. The payer comes back -----------------------------------------------------------------------------------


def order_page(order: UUID) -> str:
    """The page at `returnUrl`. That somebody opened it proves nothing: ask Registry."""
    payment = client.payments.status(order)
    ship_if_paid(payment)  # in case the webhook is late
    return f"<!doctype html><title>Your order</title><p>Order {order}: payment {payment.status}</p>"


class Shop(BaseHTTPRequestHandler):
    """The shop's three addresses."""

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Print no line per request: those of the shop stand out."""

    def answer(self) -> None:
        try:
            status, headers, body = self.route()
        except Exception as error:  # Registry sends a webhook again after a 5xx
            print(f"{self.command} {self.path}: {error!r}", file=sys.stderr)
            status, headers, body = 500, {}, b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def route(self) -> tuple[int, dict[str, str], bytes]:
        sent = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), LARGEST))
        if (self.command, self.path) == ("POST", "/buy"):
            return 303, {"Location": buy()}, b""
        if (self.command, self.path) == ("POST", "/hook"):
            return hook(sent, dict(self.headers)), {}, b""
        if self.command == "GET" and (order := re.fullmatch(r"/orders/([0-9a-f-]{36})", self.path)):
            return 200, {"Content-Type": "text/html; charset=utf-8"}, order_page(UUID(order[1])).encode()
        return 404, {}, b""


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 100  # connections that may wait; Python's 5 make callers wait for a second
    ThreadingHTTPServer(("127.0.0.1", urlsplit(SHOP).port or 80), Shop).serve_forever()
