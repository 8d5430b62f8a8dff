"""Payments of the test double: the API, and what a test decides about them."""

import csv
import io
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx2
import msgspec

from registry_client.models.payments import Payment
from registry_client.testing.changes import Changes
from registry_client.testing.payment import FINAL, FakePayment, content_of, is_same
from registry_client.testing.streams import FakeStream
from registry_client.testing.wire import Answer, Asked, Json, Refused, Routes, answer, invalid, iso, money, page

PROCESSOR = "default"
URL = "http://registry.test"
COLUMNS = (
    "correlationId",
    "status",
    "amount",
    "currency",
    "processor",
    "attempts",
    "createdAt",
    "updatedAt",
    "description",
)


class FakePayments:
    """The payments that the double accepted, in order."""

    def __init__(self, routes: Routes, changes: Changes, currency: str) -> None:
        self.stream = FakeStream("payment", changes)
        self._payments: dict[str, FakePayment] = {}
        self._changes, self._currency = changes, currency
        self._outcome: str | None = "succeeded"
        self._add_routes(routes)

    # -- What a test decides ---------------------------------------------------------------------------------------

    def settles_as(self, status: str) -> None:
        """Payments that are accepted from now on end as `succeeded`, `failed`, `uncertain` or `requires_action` at once."""
        self._outcome = status

    def holds(self) -> None:
        """Payments that are accepted from now on stay queued until `settle`."""
        self._outcome = None

    def settle(self, correlation_id: UUID, status: str = "succeeded", *, processor: str = PROCESSOR) -> None:
        """Settle a payment that is still open."""
        with self._changes.lock:
            payment = self._find(str(correlation_id))
            if payment.status in FINAL:
                raise ValueError(f"the payment is {payment.status}")
            self._settle(payment, status, processor)

    @property
    def all(self) -> list[Payment]:
        """All payments as they are, in the order in which they were accepted."""
        with self._changes.lock:
            return [msgspec.convert(one.status_body(), Payment) for one in self._payments.values()]

    # -- Accepting -------------------------------------------------------------------------------------------------

    def _add_routes(self, routes: Routes) -> None:
        one = "/payments/{payment}"
        routes.add("POST", "/payments", self._post)
        routes.add("GET", "/payments", self._list)
        routes.add("POST", "/payments/batch", self._batch)
        routes.add("GET", "/payments-summary", self._summary)
        routes.add("GET", one, lambda asked, payment: answer(self._find(payment).details()))
        routes.add("GET", f"{one}/status", lambda asked, payment: answer(self._find(payment).status_body()))
        routes.add("GET", f"{one}/events", self._events)
        routes.add("POST", f"{one}/cancel", self._cancel)
        routes.add("POST", f"{one}/capture", self._capture)
        routes.add("POST", f"{one}/refunds", self._refund)
        routes.add("GET", f"{one}/refunds", self._refunds)
        routes.add("GET", f"{one}/refunds/{{refund}}", self._one_refund)

    def _post(self, asked: Asked) -> Answer:
        payment, replayed = self._accept(asked.body, asked.headers.get("Idempotency-Key", ""))
        address = f"{URL}/payments/{payment.id}"
        body = {
            "correlationId": payment.id,
            "status": "queued",
            "amount": str(payment.amount),
            "currency": payment.currency,
            "createdAt": iso(payment.created_at),
            "statusUrl": f"{address}/status",
            "liveUrl": f"{address}/live?token=test",
        }
        headers = {"Idempotent_Replayed": "true"} if replayed else {}
        return answer(body, 202, Location=f"{address}/status", Preference_Applied="respond-async", **headers)

    def _accept(self, body: Json, key: str = "") -> tuple[FakePayment, bool]:
        """The payment, and whether it was accepted before. Raises Refused (409, 422)."""
        content = content_of(body)
        correlation_id = _id(content["correlationId"] or key or str(uuid4()))
        if found := self._payments.get(correlation_id):
            if not is_same(found.content, content):
                text = "A payment with this correlation id exists with other content."
                raise Refused(409, "different-content", text)
            return found, True
        payment = self._payments[correlation_id] = FakePayment(correlation_id, content, self._currency, self.stream)
        if self._outcome and not content["scheduledFor"]:
            self._settle(payment, self._outcome, content["processor"] or PROCESSOR)
        return payment, False

    def _settle(self, payment: FakePayment, status: str, processor: str) -> None:
        if payment.status == "queued":
            payment.send(processor)
        payment.settle(status)

    def _batch(self, asked: Asked) -> Answer:
        items = asked.body.get("items")
        if not isinstance(items, list) or not 1 <= len(items) <= 1000:
            raise invalid("items", "has 1 to 1000 items")
        return answer({"results": [self._result(item) for item in items]})

    def _result(self, item: Json) -> Json:
        try:
            payment, replayed = self._accept(item)
        except Refused as refused:
            status = "conflict" if refused.status == 409 else "invalid"
            error = {"detail": refused.detail, "errors": refused.errors or []}
            return {"correlationId": item.get("correlationId"), "status": status, "error": error}
        return {"correlationId": payment.id, "status": "replayed" if replayed else "queued"}

    # -- Reading ---------------------------------------------------------------------------------------------------

    def _find(self, payment: str) -> FakePayment:
        if payment not in self._payments:
            raise Refused(404, "unknown-payment", "There is no payment with this id.")
        return self._payments[payment]

    def _events(self, asked: Asked, payment: str) -> Answer:
        return self.stream.poll(asked, self._find(payment).id)

    def _chosen(self, asked: Asked) -> list[FakePayment]:
        """The payments that a list asks for, newest first."""
        status, processor = asked.query.get("status"), asked.query.get("processor")
        start, end = asked.time("from"), asked.time("to")
        return [
            one
            for one in reversed(self._payments.values())
            if (not status or one.status == status)
            and (not processor or one.processor == processor)
            and (start is None or one.created_at >= start)
            and (end is None or one.created_at <= end)
        ]

    def _list(self, asked: Asked) -> Answer:
        found = self._chosen(asked)
        accept = asked.headers.get("Accept", "")
        if "text/csv" in accept:
            return httpx2.Response(200, text=_table(found), headers={"Content-Type": "text/csv; charset=utf-8"})
        if "application/x-ndjson" in accept:
            lines = b"".join(msgspec.json.encode(one.listed()) + b"\n" for one in found)
            return httpx2.Response(200, content=lines, headers={"Content-Type": "application/x-ndjson"})
        return page(asked, [one.listed() for one in found])

    def _summary(self, asked: Asked) -> Answer:
        start, end = asked.time("from"), asked.time("to")
        sums: dict[str, dict[str, Any]] = {}
        for name in (PROCESSOR, *(one.processor for one in self._payments.values() if one.processor)):
            sums.setdefault(name, {"totalRequests": 0, "totalAmount": Decimal("0.00")})
        for one in self._payments.values():
            at = one.requested_at
            booked = one.status == "succeeded" and at and (not start or at >= start) and (not end or at <= end)
            if booked and one.processor and asked.query.get("currency", one.currency) == one.currency:
                sums[one.processor]["totalRequests"] += 1
                sums[one.processor]["totalAmount"] += one.amount
        return answer(sums)

    # -- Changing --------------------------------------------------------------------------------------------------

    def _cancel(self, asked: Asked, payment: str) -> Answer:
        found = self._find(payment)
        if found.status in ("queued", "canceled"):
            if found.status == "queued":
                found.move("canceled")
            return answer(found.status_body())
        if found.status != "requires_action":
            text = f"it is {found.status}; only a payment that is queued or requires action can be canceled"
            raise Refused(409, "not-cancelable", text)
        return self._at_processor(found, "canceled")

    def _capture(self, asked: Asked, payment: str) -> Answer:
        found = self._find(payment)
        if found.status != "requires_action":
            raise Refused(409, "not-capturable", f"it is {found.status}")
        return self._at_processor(found, "succeeded")

    def _at_processor(self, payment: FakePayment, status: str) -> Answer:
        """What the processor does after the response."""
        payment.move("processing")
        response = answer(payment.status_body(), 202)
        payment.settle(status)
        return response

    def _refund(self, asked: Asked, payment: str) -> Answer:
        found = self._find(payment)
        known = len(found.refunds)
        body = asked.body
        if "amount" in body:
            money(body["amount"], found.currency)
        refund = found.refund(body, asked.headers.get("Idempotency-Key", ""))
        response = answer(found.shown_refund(refund, URL), 202)
        if len(found.refunds) > known:
            found.returns(refund)
        return response

    def _refunds(self, asked: Asked, payment: str) -> Answer:
        found = self._find(payment)
        return answer({"items": [found.shown_refund(one, URL) for one in found.refunds]})

    def _one_refund(self, asked: Asked, payment: str, refund: str) -> Answer:
        found = self._find(payment)
        for one in found.refunds:
            if one["id"] == refund:
                return answer(found.shown_refund(one, URL))
        raise Refused(404, "unknown-refund", "There is no refund with this id.")


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid("correlationId", "is not a UUID") from None


def _table(payments: list[FakePayment]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([one.listed()[column] for column in COLUMNS] for one in payments)
    return text.getvalue()
