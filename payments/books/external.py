"""Ids of external payments: bookings that a processor has and that this service did not send."""

from uuid import UUID, uuid5

EXTERNAL = "booked as external"  # reason of the attempt of an external payment
_NAMESPACE = UUID("b6e5a1c2-6d0f-4f43-9a37-1c8a3f0f7d11")


def external_id(tenant_id: int, processor_id: int, correlation_id: UUID | None, reference: str) -> UUID:
    """The id of the payment that is created for this booking: the same every time."""
    return uuid5(_NAMESPACE, f"{tenant_id}:{processor_id}:{correlation_id or reference}")


def possible_ids(tenant_id: int, processor_id: int, correlation_id: UUID | None, reference: str) -> list[UUID]:
    """The ids under which a booking may be in our books: as an external payment, or as a payment that we sent."""
    ids = [external_id(tenant_id, processor_id, None, reference)]
    if correlation_id:
        ids += external_id(tenant_id, processor_id, correlation_id, ""), correlation_id
    return ids
