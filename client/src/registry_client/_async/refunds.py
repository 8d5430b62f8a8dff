"""Refunds of payments: request, read, wait."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID, uuid4

from registry_client._async.http import AsyncHttp
from registry_client._async.waiting import until
from registry_client._calls import get, post
from registry_client._retry import Deadline
from registry_client.models.common import Amount, exact
from registry_client.models.payments import NewRefund, PaymentChanges, Refund, RefundList

WAIT = 60.0  # seconds that `wait` waits


class AsyncRefunds:
    """The refunds of a tenant's payments."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def create(
        self,
        correlation_id: UUID,
        amount: Amount | None = None,
        *,
        reason: str = "",
        idempotency_key: UUID | str | None = None,
    ) -> Refund:
        """Refund a part of a payment, or all that is left of it; returns once the refund is durable.

        The key is made before the first try, so that a retry cannot refund twice. Raises Conflict if the payment did not succeed
        or less is left of it.
        """
        body = NewRefund(amount=None if amount is None else exact(amount), reason=reason)
        headers = {"Idempotency-Key": str(idempotency_key or uuid4()), "Prefer": "respond-async"}
        return await self._http.get_as(Refund, post(f"/payments/{correlation_id}/refunds", body, headers))

    async def list(self, correlation_id: UUID) -> Sequence[Refund]:
        """All refunds of a payment, oldest first."""
        return (await self._http.get_as(RefundList, get(f"/payments/{correlation_id}/refunds"))).items

    async def get(self, correlation_id: UUID, refund_id: UUID) -> Refund:
        """The state of a refund. Raises NotFound."""
        return await self._http.get_as(Refund, get(f"/payments/{correlation_id}/refunds/{refund_id}"))

    async def wait(self, correlation_id: UUID, refund_id: UUID, *, timeout: float = WAIT) -> Refund:
        """Wait until the refund is returned or failed. Raises WaitTimeout."""
        deadline = Deadline(timeout, self._http.options.retry)
        return await until(
            await self.get(correlation_id, refund_id),
            0,
            ended=lambda refund: refund.status.is_final,
            later=partial(self._later, correlation_id, refund_id),
            deadline=deadline,
        )

    async def _later(
        self, correlation_id: UUID, refund_id: UUID, after: int, wait: int, deadline: Deadline
    ) -> tuple[Sequence[Refund], int]:
        """The refund after the payment's next event: a change of a refund is one."""
        path = f"/payments/{correlation_id}/events"
        call = get(path, {"after": after, "wait": wait}, wait=wait, retry=deadline.retry)
        changes = await self._http.get_as(PaymentChanges, call)
        return [await self.get(correlation_id, refund_id)], changes.next
