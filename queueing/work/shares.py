"""Shares: which of them have due rows, how a claim is divided between them, and the floor of claims. No I/O.

The **floor** is a lower bound of `run_at`. A worker whose claims have left no due row knows that all rows that were due before are
leased, so that its next claims need not read them again, nor the index entries of finished rows, which remain for as long as some
transaction might see them. So a claim costs what it takes. Rows below the floor become due in three ways: their commit took
longer than MARGIN, their lease ended, or they were given back. A look for such rows from time to time removes the floor.
"""

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

FRESH = 0.2  # seconds for which the list of shares with due rows is used, while their rows fill the claims
LEAST = 0.05  # seconds for which it is used in spite of hints, while rows of these shares are claimed

AT_MOST = 1000  # shares with due rows that one statement returns: enough for several claims
MARGIN = 0.5  # seconds from a row's run_at to its commit, within which no claim misses it
LOOK_EVERY = 0.5  # seconds between looks below the floor
RECENT = 30.0  # seconds below the floor that each look reads: a statement that commits a row takes no longer
WHOLE_AT_MOST = 5.0  # seconds between looks at everything below the floor, where they take long
WHOLE_PAUSE = 50  # times as long as such a look takes, until the next one


type Share = Any  # what a kind of work divides by: a tenant's id, an endpoint's id, or a tenant and a kind of job


class DueShares:
    """The shares with due rows, as they were read last."""

    def __init__(self) -> None:
        self._shares: list[Share] = []
        self._read_at = -math.inf  # time.monotonic()
        self._fresh_until = -math.inf  # time.monotonic()
        self._left: set[Share] | None = (
            None  # those that may have due rows left since it was read; None: others as well
        )
        self._floor = -math.inf  # time.monotonic(): rows that were due before it are not claimed
        self._look_at = -math.inf  # time.monotonic()
        self._whole_at = -math.inf  # time.monotonic()
        self._whole = True  # whether this look is at everything below the floor
        self.looking = False  # for due rows below the floor

    @property
    def fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    async def read(self, due: Awaitable[list[Share]]) -> None:
        self._read_at = time.monotonic()  # set before the statement, so that a hint during it counts
        self._fresh_until = self._read_at + FRESH
        self._left = set()
        self._shares = await due
        if len(self._shares) >= AT_MOST:
            self.leave()
        elif self._left is not None:
            self._left = set(self._shares)
        self._raise_floor()

    def hint(self) -> None:
        """Other shares may have due rows: read the list again soon."""
        self._fresh_until = min(self._fresh_until, self._read_at + LEAST)

    def forget(self) -> None:
        """Read the list again for the next claim."""
        self._fresh_until = -math.inf

    # -- The floor -----------------------------------------------------------------------------------------------------

    @property
    def above(self) -> float | None:
        """How many seconds ago rows became due at most that claims read; None: they read all."""
        return None if self._floor == -math.inf else time.monotonic() - self._floor + MARGIN

    @property
    def asked(self) -> dict[str, float | None]:
        """Parameters of the statement `due`: it reads rows that became due between `above` and `below` seconds ago."""
        above = self.above
        if not self.looking or above is None:
            return {"limit": AT_MOST, "above": above, "below": 0.0}
        return {"limit": AT_MOST, "above": None if self._whole else above + RECENT, "below": above}

    async def look(self, due: Callable[[], Awaitable[list[Share]]]) -> None:
        """Remove the floor if rows below it are due. Does nothing if the latest look was a short time ago."""
        began, left = time.monotonic(), self._left
        if self._floor == -math.inf or began < self._look_at:
            return
        self._whole = self._whole_at <= began
        self.looking = True
        try:
            found = await due()
        finally:
            self.looking, self._left = False, left
        if found:
            self.lower()
        now = time.monotonic()
        self._look_at = now + LOOK_EVERY
        if self._whole:
            self._whole_at = now + min(WHOLE_AT_MOST, WHOLE_PAUSE * (now - began))

    def leave(self) -> None:
        """Due rows are left, of shares that were not read or may not be claimed now."""
        self._left = None

    def lower(self) -> None:
        """Claims read everything, until one leaves nothing."""
        self._floor = -math.inf
        self.leave()

    def _raise_floor(self) -> None:
        if self._left is not None and not self._left:
            if self._floor == -math.inf:
                self._look_at = time.monotonic() + LOOK_EVERY
            self._floor = self._read_at

    # -- Quotas --------------------------------------------------------------------------------------------------------

    def quotas(self, limit: int, free: dict[Share, int], share_limit: int) -> dict[Share, int]:
        """Divide a claim of `limit` rows equally between the shares that may have more rows in flight.

        `free`: how many more a share may have; those that are not in it: `share_limit`.
        """
        shares = [share for share in self._shares if free.get(share, share_limit) > 0][:limit]
        if not shares:
            return {}
        each, more = divmod(limit, len(shares))
        return {share: min(each + (n < more), free.get(share, share_limit)) for n, share in enumerate(shares)}

    def after_take(self, quotas: dict[Share, int], rows: Iterable[Share]) -> None:
        """Keep the list in step with a claim that took rows of these shares, by these quotas."""
        taken = Counter(rows)
        if self._left:
            self._left -= {share for share, quota in quotas.items() if taken[share] < quota}
            self._raise_floor()
        if taken.total() < sum(quotas.values()):  # a share has no due rows left
            self.hint()
        elif len(self._shares) > len(quotas):  # the shares for which this claim was too small are next
            self._shares = [share for share in self._shares if share not in quotas] + list(quotas)
