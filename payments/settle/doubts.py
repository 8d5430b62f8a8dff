"""Times of sends whose outcome is unknown, in the memory of one worker. They decide when a payment in doubt is sent again. No I/O."""

import time
from typing import NamedTuple

from payments.settle.decisions import PaymentClaim, Settlement
from payments.states import UNCERTAIN

REPEAT_AFTER = 0.1  # seconds, doubled with each send without an answer, before a payment in doubt is sent once more
KEPT = 100_000  # payments in memory; one that was evicted waits once more


class _Doubt(NamedTuple):
    since: float  # time.monotonic() at the end of the latest send without an answer
    silences: int  # sends of this worker without an answer


class Doubts:
    """Doubts by payment, on the monotonic clock of this worker: changes of the system time do not affect it."""

    def __init__(self) -> None:
        self._doubts: dict[tuple[int, int], _Doubt] = {}

    def is_over(self, claim: PaymentClaim) -> bool:
        """Whether the processor's longest delay had passed at the claim, by the database's clock and by ours: a look-up after that
        is final. A worker that lost its connection may have sent until `send_within` seconds after its own claim."""
        limit = claim.account.longest_delay
        return claim.in_doubt_for > limit and time.monotonic() - self._of(claim).since > limit

    def may_repeat(self, claim: PaymentClaim) -> bool:
        """Whether to send the payment again. Each send without an answer doubles the pause, until the doubt is over."""
        doubt = self._of(claim)
        pause = REPEAT_AFTER * 2 ** min(doubt.silences - 1, 16) if doubt.silences else 0.0
        return time.monotonic() - doubt.since >= pause

    def remember(self, settlement: Settlement) -> Settlement:
        """Record the result of an attempt; a payment that is no longer in doubt is removed. Returns the settlement."""
        key = settlement.key
        if settlement.status is not UNCERTAIN:
            self._doubts.pop(key, None)
        elif settlement.in_doubt_since is None:  # a new send of unknown outcome
            if len(self._doubts) >= KEPT:
                self._doubts.pop(next(iter(self._doubts)))
            before = self._doubts.get(key)
            self._doubts[key] = _Doubt(time.monotonic(), before.silences + 1 if before else 1)
        return settlement

    def _of(self, claim: PaymentClaim) -> _Doubt:
        return self._doubts.setdefault(claim.key, _Doubt(claim.taken_at, 0))
