"""All payments in one stream: as objects, or as CSV."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from registry_client._calls import Call, get
from registry_client._payments import PaymentFilters, filters_of
from registry_client._responses import decode_bytes
from registry_client._sync.http import Http
from registry_client.models.payments import ListedPayment


class Exports:
    """Exports of payments."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def payments(self, filters: PaymentFilters) -> Generator[ListedPayment]:
        with self._http.stream(_export(filters, "application/x-ndjson")) as response:
            for line in response.iter_lines():
                if line:
                    yield decode_bytes(line, ListedPayment)

    @contextmanager
    def csv(self, filters: PaymentFilters) -> Iterator[Iterator[bytes]]:
        with self._http.stream(_export(filters, "text/csv")) as response:
            yield response.iter_bytes()


def _export(filters: PaymentFilters, kind: str) -> Call:
    call = get("/payments", filters_of(filters))
    call.headers["Accept"] = kind
    return call
