"""Records every request of the clients' sessions, and its answer, by aiohttp's own traces."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from tests.histories.entries import Line, Operation

LONGEST_TEXT = 300  # characters that are kept of an answer that is not JSON


class Recorder:
    """The lines of a run, in the order in which they were completed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lines: list[Line] = []
        self._open: dict[int, SimpleNamespace] = {}

    def now(self) -> float:
        return time.monotonic() - self.began

    def add(self, line: Line) -> None:
        self.lines.append(line)

    def finish(self) -> list[Line]:
        """All lines; what is still under way was never answered, or was left unread."""
        for asked in list(self._open.values()):
            self._complete(asked)
        return self.lines

    # -- Traces ----------------------------------------------------------------------------------------------

    def traces(self, client: str) -> list[aiohttp.TraceConfig]:
        """For one session: the requests that it sends are `client`'s."""
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._started(client))
        trace.on_request_chunk_sent.append(self._sent)
        trace.on_request_end.append(self._answered)
        trace.on_response_chunk_received.append(self._received)
        trace.on_request_exception.append(self._failed)
        return [trace]

    def _started(self, client: str) -> Any:
        async def started(_: Any, asked: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
            if params.url.path.startswith("/ws/"):
                return
            asked.client, asked.url, asked.method = client, params.url, params.method
            asked.key = params.headers.get("Idempotency-Key", "")
            asked.body, asked.status, asked.answer = b"", None, b""
            asked.invoked = asked.ended = self.now()
            self._open[id(asked)] = asked

        return started

    async def _sent(self, _: Any, asked: SimpleNamespace, params: aiohttp.TraceRequestChunkSentParams) -> None:
        if id(asked) in self._open:
            asked.body += params.chunk

    async def _answered(self, _: Any, asked: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        """The head of the answer is there, and its body is not yet."""
        if id(asked) in self._open:
            asked.ended, asked.head = self.now(), params.response.status

    async def _received(self, _: Any, asked: SimpleNamespace, params: aiohttp.TraceResponseChunkReceivedParams) -> None:
        if id(asked) in self._open:
            asked.ended, asked.status, asked.answer = self.now(), asked.head, params.chunk
            self._complete(asked)

    async def _failed(self, _: Any, asked: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams) -> None:
        if id(asked) in self._open:
            asked.ended = self.now()
            self._complete(asked)

    def _complete(self, asked: SimpleNamespace) -> None:
        del self._open[id(asked)]
        self.add(
            Operation(
                client=asked.client,
                method=asked.method,
                path=asked.url.path,
                query=dict(asked.url.query),
                key=asked.key,
                asked=_content(asked.body),
                invoked=asked.invoked,
                completed=asked.ended,
                status=asked.status,
                answer=_content(asked.answer),
            )
        )


def _content(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace")[:LONGEST_TEXT]


def statuses(lines: list[Line]) -> Iterator[int | None]:
    return (line.status for line in lines if isinstance(line, Operation))
