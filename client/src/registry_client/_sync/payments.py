"""Payments: submit, read, wait, watch, cancel, capture."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from functools import partial
from typing import Unpack
from uuid import UUID

from registry_client._calls import LONGEST_POLL, get, post
from registry_client._payments import (
    BATCH_AT_MOST,
    BatchResults,
    PaymentFields,
    PaymentFilters,
    accepted,
    filters_of,
)
from registry_client._retry import Deadline, Retry
from registry_client._sync.exports import Exports
from registry_client._sync.http import Http
from registry_client._sync.live import Feed
from registry_client._sync.pages import items_of
from registry_client._sync.refunds import Refunds
from registry_client._sync.sockets import Sockets
from registry_client._sync.waiting import until
from registry_client.models.common import Amount, Page
from registry_client.models.payments import (
    AcceptedPayment,
    BatchResult,
    ListedPayment,
    NewPayment,
    Payment,
    PaymentChange,
    PaymentChanges,
    PaymentDetails,
    ProcessorSummary,
    new_payment,
)

WAIT = 60.0  # seconds that `wait` waits


class Payments:
    """The payments of a tenant."""

    def __init__(self, http: Http, sockets: Sockets) -> None:
        self._http, self._sockets = http, sockets
        self._exports = Exports(http)
        self.refunds = Refunds(http)

    # -- Submitting ------------------------------------------------------------------------------------------------

    def submit(
        self, amount: Amount, *, correlation_id: UUID | None = None, **fields: Unpack[PaymentFields]
    ) -> AcceptedPayment:
        """Submit a payment; returns once it is durable. Its id is made before the first try, so that a retry cannot book it twice.

        Raises ValidationFailed, Conflict (other content under the same id), PermissionDenied, and errors of the connection.
        """
        return self.submit_payment(new_payment(amount, correlation_id, fields))

    def submit_payment(self, payment: NewPayment) -> AcceptedPayment:
        """Submit this payment. After a ConnectionFailed the same object can be submitted again."""
        response = self._http.request(post("/payments", payment, {"Prefer": "respond-async"}))
        return accepted(response)

    def batch(self, payments: Iterable[NewPayment]) -> list[BatchResult]:
        """Submit up to 1,000 payments; one result per payment, in order. Raises ValueError for more."""
        items = list(payments)
        if not 1 <= len(items) <= BATCH_AT_MOST:
            raise ValueError(f"a batch has 1 to {BATCH_AT_MOST} payments, not {len(items)}")
        return (self._http.get_as(BatchResults, post("/payments/batch", {"items": items}))).results

    # -- Reading ---------------------------------------------------------------------------------------------------

    def status(self, correlation_id: UUID) -> Payment:
        """The state of a payment. Raises NotFound."""
        return self._http.get_as(Payment, get(f"/payments/{correlation_id}/status"))

    def get(self, correlation_id: UUID) -> PaymentDetails:
        """A payment with its content, attempts and timeline. Raises NotFound."""
        return self._http.get_as(PaymentDetails, get(f"/payments/{correlation_id}"))

    def page(
        self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[PaymentFilters]
    ) -> Page[ListedPayment]:
        """A page of the list, newest first."""
        params = {**filters_of(filters), "limit": limit, "cursor": cursor}
        return self._http.get_as(Page[ListedPayment], get("/payments", params))

    def list(self, *, page_size: int = 50, **filters: Unpack[PaymentFilters]) -> Generator[ListedPayment]:
        """All payments, newest first, page by page."""
        return items_of(lambda cursor: self.page(limit=page_size, cursor=cursor, **filters))

    def export(self, **filters: Unpack[PaymentFilters]) -> Generator[ListedPayment]:
        """All payments, newest first, in one stream. Raises ConnectionFailed if it breaks off."""
        return self._exports.payments(filters)

    def export_csv(self, **filters: Unpack[PaymentFilters]) -> AbstractContextManager[Iterator[bytes]]:
        """All payments as CSV: a context manager with the bytes."""
        return self._exports.csv(filters)

    def summary(
        self, *, from_: datetime | None = None, to: datetime | None = None, currency: str | None = None
    ) -> dict[str, ProcessorSummary]:
        """What each processor booked, by the time of the request, both ends inclusive."""
        params = {"from": from_, "to": to, "currency": currency}
        return self._http.get_as(dict[str, ProcessorSummary], get("/payments-summary", params))

    # -- Changing --------------------------------------------------------------------------------------------------

    def cancel(self, correlation_id: UUID) -> Payment:
        """Cancel a payment that is queued or requires action. Raises Conflict if a worker was faster.

        One that requires action is canceled at its processor afterwards: `wait` for it.
        """
        return self._http.get_as(Payment, post(f"/payments/{correlation_id}/cancel"))

    def capture(self, correlation_id: UUID) -> Payment:
        """Have an authorized payment captured. Raises Conflict if it does not wait for that."""
        return self._http.get_as(Payment, post(f"/payments/{correlation_id}/capture"))

    # -- Waiting and watching --------------------------------------------------------------------------------------

    def wait(self, correlation_id: UUID, *, timeout: float = WAIT) -> Payment:
        """Wait until the payment succeeded, failed, was canceled, or requires action. Raises WaitTimeout.

        It waits by long polls; errors that allow it are retried until `timeout`.
        """
        deadline = Deadline(timeout, self._http.options.retry)
        path = f"/payments/{correlation_id}/status"
        current = self._http.get_as(Payment, get(path, retry=deadline.retry))

        def later(after: int, wait: int, deadline: Deadline) -> tuple[Sequence[Payment], int]:
            found = self._later(correlation_id, after, wait, deadline.retry)
            return [change.payment for change in found.events], found.next

        return until(
            current, current.sequence, ended=lambda one: not one.status.is_open, later=later, deadline=deadline
        )

    def watch(self, correlation_id: UUID, *, after: int | None = None) -> Generator[Payment]:
        """The payment's state now, and every change of it, until the outcome is known; with `after`, every change above it."""
        if after is not None:
            current = self.status(correlation_id)
            if current.status.is_final and current.sequence <= after:
                return
        with closing(self._feed(correlation_id).changes(after)) as changes:
            for change in changes:
                yield change.payment
                if change.payment.status.is_final:
                    return

    def watch_all(self, *, after: int | None = None) -> Generator[PaymentChange]:
        """Every change of every payment of the tenant from now on, or above the number `after`. It ends only by an error."""
        feed = Feed(
            PaymentChange,
            opened=partial(self._sockets.opened, "/ws/payments"),
            check=partial(self.page, limit=1),
            reconnect=self._http.options.reconnect,
        )
        return feed.changes(after)

    def _feed(self, correlation_id: UUID) -> Feed[PaymentChange]:
        return Feed(
            PaymentChange,
            opened=partial(self._sockets.opened, f"/ws/payments/{correlation_id}"),
            check=partial(self.status, correlation_id),
            poll=partial(self._poll, correlation_id),
            reconnect=self._http.options.reconnect,
        )

    def _poll(self, correlation_id: UUID, after: int | None) -> Sequence[PaymentChange]:
        patient = self._http.options.reconnect
        if after is None:
            call = get(f"/payments/{correlation_id}/status", retry=patient)
            current = self._http.get_as(Payment, call)
            return [PaymentChange(sequence=current.sequence, payment=current)]
        return (self._later(correlation_id, after, int(LONGEST_POLL), patient)).events

    def _later(self, correlation_id: UUID, after: int, wait: int, retry: Retry | None = None) -> PaymentChanges:
        call = get(f"/payments/{correlation_id}/events", {"after": after, "wait": wait}, wait=wait, retry=retry)
        return self._http.get_as(PaymentChanges, call)
