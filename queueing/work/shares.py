"""Shares: which of them have due rows, and how a claim is divided between them. No I/O."""

import math
import time
from collections.abc import Awaitable
from typing import Any

FRESH = 0.2  # seconds for which the list of shares with due rows is used, while their rows fill the claims
LEAST = 0.05  # seconds for which it is used in spite of hints, while rows of these shares are claimed


type Share = Any  # what a kind of work divides by: a tenant's id, an endpoint's id, or a tenant and a kind of job


class DueShares:
    """The shares with due rows, as they were read last."""

    def __init__(self) -> None:
        self._shares: list[Share] = []
        self._read_at = -math.inf  # time.monotonic()
        self._fresh_until = -math.inf  # time.monotonic()

    @property
    def fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    async def read(self, due: Awaitable[list[Share]]) -> None:
        self._read_at = time.monotonic()  # set before the statement, so that a hint during it counts
        self._fresh_until = self._read_at + FRESH
        self._shares = await due

    def hint(self) -> None:
        """Other shares may have due rows: read the list again soon."""
        self._fresh_until = min(self._fresh_until, self._read_at + LEAST)

    def forget(self) -> None:
        """Read the list again for the next claim."""
        self._fresh_until = -math.inf

    def quotas(self, limit: int, free: dict[Share, int], share_limit: int) -> dict[Share, int]:
        """Divide a claim of `limit` rows equally between the shares that may have more rows in flight.

        `free`: how many more a share may have; those that are not in it: `share_limit`.
        """
        shares = [share for share in self._shares if free.get(share, share_limit) > 0][:limit]
        if not shares:
            return {}
        each, more = divmod(limit, len(shares))
        return {share: min(each + (n < more), free.get(share, share_limit)) for n, share in enumerate(shares)}

    def after_take(self, quotas: dict[Share, int], taken: int) -> None:
        """Keep the list in step with a claim that took so many rows of these quotas."""
        if taken < sum(quotas.values()):  # a share has no due rows left
            self.hint()
        elif len(self._shares) > len(quotas):  # the shares for which this claim was too small are next
            self._shares = [share for share in self._shares if share not in quotas] + list(quotas)
