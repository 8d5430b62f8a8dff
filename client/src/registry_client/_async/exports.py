"""All payments in one stream: as objects, or as CSV."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from registry_client._async.http import AsyncHttp
from registry_client._calls import Call, get
from registry_client._payments import PaymentFilters, filters_of
from registry_client._responses import decode_bytes
from registry_client.models.payments import ListedPayment


class AsyncExports:
    """Exports of payments."""

    def __init__(self, http: AsyncHttp) -> None:
        self._http = http

    async def payments(self, filters: PaymentFilters) -> AsyncGenerator[ListedPayment]:
        async with self._http.stream(_export(filters, "application/x-ndjson")) as response:
            async for line in response.aiter_lines():
                if line:
                    yield decode_bytes(line, ListedPayment)

    @asynccontextmanager
    async def csv(self, filters: PaymentFilters) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._http.stream(_export(filters, "text/csv")) as response:
            yield response.aiter_bytes()


def _export(filters: PaymentFilters, kind: str) -> Call:
    call = get("/payments", filters_of(filters))
    call.headers["Accept"] = kind
    return call
