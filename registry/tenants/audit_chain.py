"""Verifies the audit trail: each tenant's entries form a chain of digests. audit.py writes the entries.

The database adds an entry's link when the entry's transaction commits (registry/migrations/sql/audit_chain.sql), so writers
wait for each other no longer than a commit takes. A link's digest is SHA-256 over the previous digest and the entry's
content. The chain's end is kept in AuditHead, and in the logs, out of reach of anyone who can change the database.
"""

import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.data import database
from registry.data.chores import chore
from registry.data.loop import sync_twin
from registry.models import Tenant
from registry.telemetry import metrics
from registry.tenants.books import SERVICE, BookDifference, BookSlice, book_part

log = logging.getLogger(__name__)

SQL = database.statements(Path(__file__).parent / "sql" / "audit.sql")

PROVE_EVERY = 3600  # seconds; heads go to the log, out of reach of anyone who can change the database
PAGE = 1000  # links read and hashed at once: some milliseconds of the loop


@dataclass(frozen=True, slots=True)
class Noted:
    """A recorded earlier end of a chain: `position:digest`."""

    position: int
    digest: str  # hex

    @classmethod
    def parse(cls, text: str) -> "Noted":
        """Raises ValueError."""
        position, _, digest = text.partition(":")
        if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
            raise ValueError("a digest has 64 hexadecimal digits")
        return cls(int(position), digest.lower())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of verifying a chain. `fault` is empty for a valid chain."""

    chain: int  # the tenant's id, or SERVICE
    entries: int  # valid ones, from the first
    head: str  # digest of the last of them
    fault: str = ""
    position: int | None = None  # where the chain breaks
    entry: int | None = None  # the audit entry there

    @property
    def sound(self) -> bool:
        return not self.fault


async def verify(chain: int, *, noted: Noted | None = None) -> Verdict:
    """Verify a chain from its first entry to its head. `noted`: an earlier end that it must still contain."""
    head = await database.fetch(SQL["head"], {"chain": chain})
    length, last = head[0] if head else (0, b"")
    digest, position = b"", 0
    async for number, entry, stated, owner, content in _links(chain):
        fault = ""
        if number != position + 1:
            return _broken(chain, position, digest, "links are missing before it", number, entry)
        if content is None:
            fault = "the entry is gone"
        elif owner != chain or hashlib.sha256(digest + content.encode()).digest() != stated:
            fault = "the entry, or its place, was changed"
        elif noted and number == noted.position and stated.hex() != noted.digest:
            fault = "it is not the entry that was noted"
        if fault:
            return _broken(chain, position, digest, fault, number, entry)
        digest, position = stated, number
    return await _end(chain, position, digest, length, last, noted)


async def _links(chain: int) -> AsyncIterator[tuple[int, int, bytes, int, str | None]]:
    after = 0
    while True:
        page = await database.fetch(SQL["links"], {"chain": chain, "after": after, "limit": PAGE})
        for number, entry, stated, owner, content in page:
            yield number, entry, bytes(stated), owner, content
        if len(page) < PAGE:
            return
        after = page[-1][0]


async def _end(chain: int, position: int, digest: bytes, length: int, last: bytes, noted: Noted | None) -> Verdict:
    """Check that a chain that is valid up to `position` is complete. It may have grown since its head was read."""
    if position < length or (noted and position < noted.position):
        return _broken(chain, position, digest, "the latest entries are gone", position + 1)
    if position == length and digest != bytes(last):
        return _broken(chain, position, digest, "the head is of another chain", position)
    [(stray,)] = await database.fetch(SQL["unlinked"], {"chain": chain})
    if stray is not None:
        return _broken(chain, position, digest, "an entry has no link", None, stray)
    return Verdict(chain, position, digest.hex())


def _broken(chain: int, position: int, digest: bytes, fault: str, at: int | None, entry: int | None = None) -> Verdict:
    return Verdict(chain, position, digest.hex(), fault, at, entry)


async def verify_all() -> list[Verdict]:
    """Verify every chain, the service's own first."""
    return [await verify(chain) for (chain,) in await database.fetch(SQL["chains"])]


@chore("prove-audit", every=PROVE_EVERY)
async def prove_audit() -> str:
    """Verify every chain and log its head, so that a later verification can be compared with it. Returns what is broken."""
    broken = []
    for verdict in await verify_all():
        metrics.AUDIT_PROOFS.labels("sound" if verdict.sound else "broken").inc()
        said = {"chain": verdict.chain, "head": f"{verdict.entries}:{verdict.head}"}
        if verdict.sound:
            log.info("audit trail holds", extra=said)
        else:
            log.error("audit trail broken", extra=said | {"position": verdict.position, "fault": verdict.fault})
            broken.append(f"chain {verdict.chain}, position {verdict.position or 'unknown'}: {verdict.fault}")
    return "; ".join(broken)


@book_part("audit entries", service=True)
async def check_audit(tenant_id: int, _after: Any) -> AsyncIterator[BookSlice]:
    """The tenant's chain; SERVICE has one too."""
    verdict = await verify(tenant_id)
    yield BookSlice(rows=verdict.entries, share=1.0, differences=[] if verdict.sound else [_difference(verdict)])


def _difference(verdict: Verdict) -> BookDifference:
    entry = "the audit trail" if verdict.entry is None else f"audit entry {verdict.entry}"
    position = "" if verdict.position is None else f" at position {verdict.position}"
    return BookDifference(
        kind="audit",
        subject=f"{entry}{position}",
        stored=verdict.fault,
        expected="what the chain's digests were computed from",
    )


async def names(verdicts: list[Verdict]) -> dict[int, str]:
    """Names of the chains: slugs of tenants, a dash for the service's own."""
    tenants = Tenant.async_objects.filter(pk__in=[verdict.chain for verdict in verdicts])
    return {SERVICE: "–"} | {pk: slug async for pk, slug in tenants.values_list("pk", "slug")}


verify_sync = sync_twin(verify)
