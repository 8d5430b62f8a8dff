"""Processors of kind `stripe`: a payment is a PaymentIntent. Outcomes of answers are in answers.py.

Every write carries an idempotency key made from the decision (tenant, payment, requestedAt) and the step, so that a repeated
"create" is the same request to Stripe. Stripe forgets keys after 24 hours: older intents are looked up before they are created.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import ClassVar, Self
from uuid import UUID

import msgspec
import stripe
from stripe.params import (
    PaymentIntentCancelParams,
    PaymentIntentCaptureParams,
    PaymentIntentConfirmParams,
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    PaymentIntentRetrieveParams,
    PaymentIntentSearchParams,
)

from payments.processors.base import Account, Health, Order, Outcome, ProcessorRecord, RefundOrder, Result, Unanswered
from payments.processors.reports import DisputeReport, RefundReport
from payments.processors.stripe.amounts import from_stripe, share_in_stripe, to_stripe
from payments.processors.stripe.answers import TROUBLE, failure, is_replay, labels, next_step, outcome_of
from payments.processors.stripe.client import LOOK_UP_TIMEOUT, SEND_TIMEOUT, Clients
from payments.processors.stripe.refunds import look_up_refund, refund
from payments.processors.stripe.reports import dispute_report, refund_report, refunds_of_charge
from registry.data import clock
from registry.edge.api import iso

KEYS_KEPT = timedelta(hours=23)  # Stripe forgets idempotency keys after 24 hours
CLOCKS_APART = timedelta(minutes=5)  # how far Stripe's clock, by which intents are listed, may be behind ours
LATEST = timedelta(days=1)  # after its requestedAt within which an intent may be created; later it is looked up first
PAGE = 100  # intents per list request
PAGES = 5  # list pages that a look-up reads before it uses Stripe's search
STEPS = 4  # of an intent in one send
CHARGE = "latest_charge.balance_transaction"  # expanded in intents: Stripe's fee


class StripeProcessor:
    """A client of Stripe, or of a Stripe sandbox at the account's address."""

    kind: ClassVar[str] = "stripe"
    polled: ClassVar[bool] = False

    async def __aenter__(self) -> Self:
        self._clients = await Clients().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._clients.__aexit__(*exc)

    async def send(self, order: Order, account: Account) -> Outcome:
        return await self._run(order, account, _Errand.send, SEND_TIMEOUT)

    async def look_up(self, order: Order, account: Account) -> Outcome:
        """NOT_BOOKED only follows from a list that was read to its end. An error of the look-up itself proves nothing."""
        return await self._run(order, account, _Errand.look_up, LOOK_UP_TIMEOUT, asking=True)

    async def health(self, account: Account) -> Health | None:
        return None

    async def _run(
        self,
        order: Order,
        account: Account,
        work: "Callable[[_Errand], Awaitable[Outcome]]",
        limit: float,
        *,
        asking: bool = False,
    ) -> Outcome:
        errand = None
        try:
            async with asyncio.timeout(limit):
                errand = _Errand(self._clients.of(account), order, account)
                return await work(errand)
        except TROUBLE as error:
            outcome, reference = failure(error), errand.reference if errand else order.reference
            # Once an intent exists, only its own state counts.
            return _in_doubt(outcome, reference) if asking or reference else outcome

    async def whose(self, account: Account) -> str:
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT):
                return (await self._clients.of(account).v1.accounts.retrieve_current_async()).id
        except TROUBLE as error:
            raise Unanswered(failure(error).code) from error

    # -- Refunds --

    async def refund(self, order: RefundOrder, account: Account) -> Outcome:
        return await refund(self._clients, order, account)

    async def look_up_refund(self, order: RefundOrder, account: Account) -> Outcome:
        return await look_up_refund(self._clients, order, account)

    async def refund_report(self, reference: str, account: Account) -> RefundReport:
        return await refund_report(self._clients, reference, account)

    async def refunds_of_charge(self, reference: str, account: Account) -> list[RefundReport]:
        return await refunds_of_charge(self._clients, reference, account)

    async def dispute_report(self, reference: str, account: Account) -> DisputeReport:
        return await dispute_report(self._clients, reference, account)

    # -- Records --

    async def records(self, account: Account, since: datetime, until: datetime) -> AsyncIterator[ProcessorRecord]:
        """Paid intents, without those of our other accounts that use the same key.

        Intents that we did not create have their creation time as `requested_at`.
        """
        params: PaymentIntentListParams = {
            "created": {"gte": _seconds(since - CLOCKS_APART), "lte": _seconds(until + LATEST)},
            "limit": PAGE,
            "expand": ["data.latest_charge"],
        }
        try:
            page = await self._clients.of(account).v1.payment_intents.list_async(params)
            while True:
                for intent in page.data:
                    if intent.status != "succeeded" or not _may_be_of(account, labels(intent)):
                        continue
                    record = _record(intent)
                    if since <= record.requested_at <= until:
                        yield record
                if not page.has_more:
                    return
                page = await page.next_page_async()
        except TROUBLE as error:
            raise Unanswered(failure(error).code) from error


class _Errand:
    """One payment at one account: moves its intent on to a state that is an outcome."""

    def __init__(self, client: stripe.StripeClient, order: Order, account: Account) -> None:
        self.intents = client.v1.payment_intents
        self.order = order
        self.account = account
        self.reference = order.reference

    async def send(self) -> Outcome:
        if self.reference:
            return await self._advance(await self._retrieve())
        if clock.now() - self.order.requested_at > KEYS_KEPT:
            return Outcome(Result.NOT_BOOKED, code="key_forgotten")  # a second intent could be created: nothing is sent
        try:
            intent = await self.intents.create_async(_asked(self.order, self.account), self._key("create"))
        except stripe.CardError as error:
            if (declined := getattr(error.error, "payment_intent", None)) is None:
                raise
            intent = declined
        self.reference = intent.id
        return await self._advance(await self._retrieve() if is_replay(intent) else intent)

    async def look_up(self) -> Outcome:
        intent = await self._retrieve() if self.reference else await self._find()
        if intent is None:
            return Outcome(Result.NOT_BOOKED, code="not_there_yet")
        self.reference = intent.id
        return await self._advance(intent)

    async def _advance(self, intent: stripe.PaymentIntent) -> Outcome:
        for _ in range(STEPS):
            step = next_step(intent, self.order)
            if not step:
                return outcome_of(intent, self.order, self.account)
            intent = await self._take(step, intent)
        return Outcome(Result.UNKNOWN, code=intent.status, reference=intent.id)

    async def _take(self, step: str, intent: stripe.PaymentIntent) -> stripe.PaymentIntent:
        """Carry out one step. If it is refused because of the intent's state or card, return the current intent."""
        try:
            taken = await {"confirm": self._confirm, "capture": self._capture, "cancel": self._cancel}[step](intent.id)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            if getattr(error.error, "payment_intent", None) is None:
                raise
            return await self._retrieve()
        return await self._retrieve() if is_replay(taken) else taken

    async def _confirm(self, name: str) -> stripe.PaymentIntent:
        params: PaymentIntentConfirmParams = {"expand": [CHARGE]}
        if (self.order.method or {}).get("offSession"):
            params["off_session"] = True
        return await self.intents.confirm_async(name, params, self._key("confirm"))

    async def _capture(self, name: str) -> stripe.PaymentIntent:
        params: PaymentIntentCaptureParams = {"expand": [CHARGE]}
        return await self.intents.capture_async(name, params, self._key("capture"))

    async def _cancel(self, name: str) -> stripe.PaymentIntent:
        wanted = self.order.canceling
        params: PaymentIntentCancelParams = {"cancellation_reason": "requested_by_customer" if wanted else "abandoned"}
        return await self.intents.cancel_async(name, params, self._key("cancel"))

    async def _retrieve(self) -> stripe.PaymentIntent:
        params: PaymentIntentRetrieveParams = {"expand": [CHARGE]}
        return await self.intents.retrieve_async(self.reference, params)

    async def _find(self) -> stripe.PaymentIntent | None:
        """Find the payment's intent among those created since requestedAt."""
        params: PaymentIntentListParams = {
            "created": {"gte": _seconds(self.order.requested_at - CLOCKS_APART)},
            "limit": PAGE,
            "expand": [f"data.{CHARGE}"],
        }
        page = await self.intents.list_async(params)
        for number in count(1):
            for intent in page.data:
                if self._is_ours(intent):
                    return intent
            if not page.has_more:
                break
            if number == PAGES and (found := await self._search()):
                return found
            page = await page.next_page_async()  # limited by the look-up's time-out
        return None

    async def _search(self) -> stripe.PaymentIntent | None:
        """Search by metadata. No result proves nothing: the search index is a minute behind, or more."""
        payment, tenant = self.order.correlation_id, self.order.tenant_id
        params: PaymentIntentSearchParams = {
            "query": f"metadata['registry_payment']:'{payment}' AND metadata['registry_tenant']:'{tenant}'",
            "limit": PAGE,
            "expand": [f"data.{CHARGE}"],
        }
        try:
            found = await self.intents.search_async(params)
        except stripe.InvalidRequestError:  # not every account may use search
            return None
        return next((intent for intent in found.data if self._is_ours(intent)), None)

    def _is_ours(self, intent: stripe.PaymentIntent) -> bool:
        """Whether the intent belongs to this payment and account. A canceled intent counts for its own decision only."""
        wanted, said = _metadata(self.order, self.account), labels(intent)
        del wanted["registry_processor"]  # older intents do not have it
        if intent.status != "canceled":
            del wanted["registry_requested_at"]
        return wanted.items() <= said.items() and _may_be_of(self.account, said)

    def _key(self, step: str) -> stripe.RequestOptions:
        """The idempotency key of a step. Only "create" depends on its key; repeated steps are prevented by the intent's state.

        Steps therefore have a key per attempt: Stripe stores a 500 under its key and would repeat it for a day.
        """
        order = self.order
        last = step if step == "create" else f"{step}:{order.attempt}"
        return {"idempotency_key": f"{order.tenant_id}:{order.correlation_id}:{iso(order.requested_at)}:{last}"}


def _asked(order: Order, account: Account) -> PaymentIntentCreateParams:
    """Parameters of the payment's intent. Raises AmountRefused."""
    params: PaymentIntentCreateParams = {
        "amount": to_stripe(order.amount, order.currency),
        "currency": order.currency.lower(),
        "capture_method": "manual" if account.options.get("capture") == "manual" else "automatic",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": _metadata(order, account),
        "expand": [CHARGE],
    }
    if order.description:
        params["description"] = order.description
    method = order.method or {}
    if customer := method.get("customer"):
        params["customer"] = customer
    if payment_method := method.get("paymentMethod"):
        params["payment_method"] = payment_method
        params["confirm"] = True
        if method.get("offSession"):
            params["off_session"] = True
    if destination := account.options.get("destination"):
        params["transfer_data"] = {"destination": destination}
        if fee := share_in_stripe(order.amount, order.currency, account.application_ppm):
            params["application_fee_amount"] = fee
    return params


def _metadata(order: Order, account: Account) -> dict[str, str]:
    return {
        "registry_payment": str(order.correlation_id),
        "registry_tenant": str(order.tenant_id),
        "registry_processor": str(account.id),
        "registry_requested_at": iso(order.requested_at),
    }


def _may_be_of(account: Account, said: dict[str, str]) -> bool:
    """Whether the intent is ours. With Connect all tenants share the platform's key, so others' intents are listed too."""
    ours = {"registry_tenant": str(account.tenant_id), "registry_processor": str(account.id)}
    return all(said.get(name, own) == own for name, own in ours.items())


def _record(intent: stripe.PaymentIntent) -> ProcessorRecord:
    currency, charge = intent.currency.upper(), intent.latest_charge
    said = labels(intent)
    made = datetime.fromtimestamp(intent.created, UTC)
    refunded = charge.amount_refunded if isinstance(charge, stripe.Charge) else 0
    return ProcessorRecord(
        correlation_id=UUID(said["registry_payment"]) if said.get("registry_payment") else None,
        reference=intent.id,
        amount=from_stripe(intent.amount_received, currency),
        currency=currency,
        refunded=from_stripe(refunded, currency),
        requested_at=datetime.fromisoformat(said["registry_requested_at"]) if "registry_requested_at" in said else made,
    )


def _in_doubt(outcome: Outcome, reference: str) -> Outcome:
    """An error of a later request: UNKNOWN for the payment, but it still counts for the processor's health."""
    return msgspec.structs.replace(outcome, result=Result.UNKNOWN, reference=reference)


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
