"""The load: payments to both web hosts, as from a shop behind a balancer. Each has one id, with which it is sent again until it is accepted."""

import itertools
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import aiohttp

from tests.chaos.sender import Sender
from tests.waiting import eventually

ANSWER_LIMIT = 3.0  # seconds for one answer: what a frozen host holds must not be all that may be under way
LEFT_OUT = 2.0  # seconds without new payments for a host that did not answer, as in nginx's configuration


class Shop(Sender):
    """Notes when each payment was accepted."""

    def __init__(self, hosts: Sequence[str], key: str, *, rate: int, traces: Sequence[aiohttp.TraceConfig]) -> None:
        """`hosts`: the addresses of the web hosts."""
        super().__init__(hosts[0], key, rate=rate)
        self.traces = list(traces)
        self.moments: list[float] = []  # of time.time
        self._left_out = dict.fromkeys(hosts, 0.0)  # until when
        self._turns = itertools.cycle([list(hosts), list(reversed(hosts))])

    async def _accepted(self, session: aiohttp.ClientSession, path: str, **request: Any) -> Any:
        host = self._next()
        limit = aiohttp.ClientTimeout(total=ANSWER_LIMIT)
        answer = await super()._accepted(session, f"{host}{path}", timeout=limit, **request)
        if answer is None:
            self._left_out[host] = time.monotonic() + LEFT_OUT
        else:
            self.moments.append(time.time())
        return answer

    def _next(self) -> str:
        """In turns; a host that did not answer comes last."""
        now = time.monotonic()
        return min(next(self._turns), key=lambda host: max(self._left_out[host], now))

    async def more(self, number: int, *, within: float) -> None:
        wanted = len(self.accepted) + number
        await eventually(lambda: len(self.accepted) >= wanted, within=within)


def longest_pause(moments: Sequence[float], began: float, ended: float) -> float:
    """The longest time without any of the moments, of those that lie at least partly between these two."""
    pauses = [(one, other) for one, other in pairwise(sorted(moments)) if other > began and one < ended]
    return max((other - one for one, other in pauses), default=0.0)
