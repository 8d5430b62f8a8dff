"""The heartbeat of a host: `up` reports its role, version and processes every few seconds, until it is stopped."""

import asyncio
import hashlib
import json
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models.functions import Now

from registry.data import database, faults
from registry.errors import Unavailable
from registry.models import HOST_SILENT_AFTER, Host
from registry.servers.child import PartState

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parents[1] / "sql" / "hosts.sql")

BEAT_EVERY = 2.0  # seconds
BEAT_LIMIT = 5.0  # seconds for one heartbeat
LEAVE_LIMIT = 1.0  # seconds to say that it stops; `up` owes its exit within 10 s
FORGET_AFTER = 24 * 3600.0  # seconds of silence
KEY_BYTES = 8  # of the digest of a secret key


class Heartbeat:
    """What one `up` reports. Called by its supervisor."""

    every = BEAT_EVERY

    def __init__(self, *, role: str, version: str, address: str) -> None:
        self.facts = {"name": settings.REGISTRY_HOST, "place": place(), "role": role, "version": version[:63]}
        self.facts |= {"address": address[:255], "keys": json.dumps(key_digests())}
        self._first = True

    async def beat(self, processes: Sequence[PartState]) -> None:
        """Never raises: while PostgreSQL is away nobody could read it."""
        try:
            async with asyncio.timeout(BEAT_LIMIT), database.own_connection():
                await self._beat(processes)
        except (Unavailable, TimeoutError):
            pass
        except Exception as error:
            faults.warn(log, "the heartbeat of this host was not stored", error=error)

    async def _beat(self, processes: Sequence[PartState]) -> None:
        told: dict[str, Any] = {"processes": json.dumps([one._asdict() for one in processes])}
        told |= {"clock_offset": await clock_offset(), "first": self._first}
        await database.fetch(SQL["beat"], {**self.facts, **told})
        if self._first:
            await database.fetch(SQL["forget"], {"after": FORGET_AFTER})
        self._first = False

    async def leave(self) -> None:
        """Never raises: then the host counts as silent."""
        with suppress(Exception):
            async with asyncio.timeout(LEAVE_LIMIT), database.own_connection():
                await database.fetch(SQL["leave"], {"name": self.facts["name"], "place": self.facts["place"]})


async def clock_offset() -> float:
    """Seconds by which this host's clock is ahead of PostgreSQL's, whose answer belongs to the middle of the question's time."""
    before = time.time()
    [(theirs,)] = await database.fetch(SQL["clock"], prepare=False)
    return (before + time.time()) / 2 - theirs


def refuse_misfit() -> None:
    """Raise ImproperlyConfigured where this host may not join those that run: another has its name, or other secret keys."""
    mine = set(key_digests())
    others = Host.objects.filter(heartbeat_at__gte=Now() - HOST_SILENT_AFTER).exclude(place=place())
    for other in others:
        if other.name == settings.REGISTRY_HOST:
            raise ImproperlyConfigured(
                f"a host named {other.name} runs already, at {other.address}: REGISTRY_HOST wants another name for each host"
            )
        if mine.isdisjoint(other.keys):
            raise ImproperlyConfigured(
                f"SECRET_KEY is not the one of host {other.name}: sessions, links and encrypted secrets of one host would be "
                "invalid on the other. Set the same SECRET_KEY on all; a new key with the old one in SECRET_KEY_FALLBACKS"
            )


def key_digests() -> list[str]:
    """Of all secret keys that this host reads: hosts must have one in common, also while SECRET_KEY is replaced."""
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return [hashlib.blake2b(b"host" + key.encode(), digest_size=KEY_BYTES).hexdigest() for key in keys]


def place() -> str:
    """A digest of the machine and the data folder: a host that was killed and is started again is the same one."""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text()
        return _digest(machine)
    return _digest("")


def _digest(machine: str) -> str:
    text = f"{machine} {socket.gethostname()} {settings.REGISTRY_DATA}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
