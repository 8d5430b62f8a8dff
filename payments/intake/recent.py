"""Payments that this process has accepted lately: while PostgreSQL is unavailable, other content under their ids is refused.

Only that. The same content is written down again all the same, because a purge may have removed the payment meanwhile. Other content
under such an id is refused until PostgreSQL is back: only sandboxes are purged.
"""

from collections import OrderedDict
from collections.abc import Mapping

from payments.intake.payment import Key, Submission

KEPT = 10_000  # ids; about 4 MB

_fingerprints: OrderedDict[Key, bytes] = OrderedDict()  # one per process, in the order of acceptance


def remember(fingerprints: Mapping[Key, bytes]) -> None:
    """These are in PostgreSQL."""
    _fingerprints.update(fingerprints)
    while len(_fingerprints) > KEPT:
        _fingerprints.popitem(last=False)


def has_other_content(one: Submission) -> bool:
    """Whether the id was accepted lately with other content."""
    return _fingerprints.get(one.key, one.fingerprint) != one.fingerprint
