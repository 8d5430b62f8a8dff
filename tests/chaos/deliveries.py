"""Checks of what producers and readers of a queue recorded: no loss, order, no repetition after an ack. traffic.py runs them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

COMPLETED, FAILED, RETRY, DEAD = "completed", "failed", "retry", "dlq"
SHOWN = 3  # examples of a fault


class Message(NamedTuple):
    """A producer numbers what it sends; `transactionId` and partition name a message for good."""

    partition: str
    producer: str
    number: int

    @property
    def transaction_id(self) -> str:
        return f"{self.producer}:{self.number}"


def named(partition: str, transaction_id: str) -> Message:
    producer, _, number = transaction_id.rpartition(":")
    return Message(partition, producer, int(number))


class Got(msgspec.Struct, frozen=True, tag=True):
    """A pop was answered. The lease began after `sent`, in seconds since 1970."""

    lease: str
    group: str
    sent: float
    received: float
    messages: list[Message]


class Says(msgspec.Struct, frozen=True, tag=True):
    """The reader is about to say this of the messages of its lease, in their order."""

    lease: str
    statuses: list[str]


class Heard(msgspec.Struct, frozen=True, tag=True):
    """What it was told; `again`: an earlier answer was lost."""

    lease: str
    success: list[bool]
    at: float
    again: bool


type Note = Got | Says | Heard

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Note).decode


class Hand(msgspec.Struct):
    """What one pop brought, and what became of it as far as its reader knows."""

    got: Got
    says: Says | None = None
    heard: Heard | None = None

    def is_done(self, place: int) -> bool:
        """Whether the reader was told that the group will not get the message again."""
        said = self.says and self.says.statuses[place] in (COMPLETED, DEAD)
        return bool(said and self.heard and self.heard.success[place])

    def gave_back(self, place: int) -> bool:
        """It, or one before it in its partition, may come again at once."""
        partition = self.got.messages[place].partition
        said = zip(self.got.messages[: place + 1], self.says.statuses if self.says else (), strict=False)
        return any(status in (FAILED, RETRY) and one.partition == partition for one, status in said)


class Book:
    """All that was accepted, and all that was handed out."""

    def __init__(self) -> None:
        self.accepted: set[Message] = set()
        self.hands: dict[str, Hand] = {}
        self.delivered: defaultdict[str, set[Message]] = defaultdict(set)
        self.surprises: list[str] = []  # answers that a good client should never get

    def write(self, note: Note) -> None:
        if isinstance(note, Got):
            if note.lease in self.hands:
                self.surprises.append(f"the lease {note.lease} was given twice")
            self.hands[note.lease] = Hand(note)
            self.delivered[note.group].update(note.messages)
        elif isinstance(note, Says):
            self.hands[note.lease].says = note
        else:
            self.hands[note.lease].heard = note

    def copy(self, path: Path) -> list[Note]:
        """The notes of another process, which may have died in the middle of a line."""
        notes = [_decode(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        for note in notes:
            self.write(note)
        return notes


# -- The judge -----------------------------------------------------------------------------------------------


class Sight(NamedTuple):
    """A message in a hand."""

    hand: Hand
    place: int


def faults(book: Book, groups: Iterable[str], *, lease: float) -> Iterator[str]:
    """What is wrong, in words. `lease`: seconds that a lease lasts at least."""
    if book.surprises:
        yield f"{len(book.surprises)} answers no client should get: {book.surprises[:SHOWN]}"
    for group in groups:
        sights = _sights(book, group)
        for words, wrong in (
            ("accepted and never delivered", book.accepted - sights.keys()),
            ("delivered and never accepted", sights.keys() - book.accepted),
            ("delivered for the first time after a later one of their producer", _out_of_order(sights)),
            ("delivered again after they were done", _again_after_done(sights)),
            ("delivered again while they were leased", _again_while_leased(sights, lease)),
            ("refused under a lease that was alive", _refused_in_time(sights, lease)),
        ):
            if wrong:
                yield f"{group}: {len(wrong)} {words}: {sorted(wrong)[:SHOWN]}"


def _sights(book: Book, group: str) -> dict[Message, list[Sight]]:
    """In the order in which messages were first seen by anybody, each with all its sights."""
    found: dict[Message, list[Sight]] = defaultdict(list)
    for hand in sorted(book.hands.values(), key=lambda hand: hand.got.received):
        if hand.got.group == group:
            for place, message in enumerate(hand.got.messages):
                found[message].append(Sight(hand, place))
    return found


def _out_of_order(sights: dict[Message, list[Sight]]) -> list[Message]:
    wrong, latest = [], {}
    for message in sights:
        strand = (message.partition, message.producer)
        if message.number < latest.get(strand, message.number):
            wrong.append(message)
        latest[strand] = max(message.number, latest.get(strand, message.number))
    return wrong


def _again_after_done(sights: dict[Message, list[Sight]]) -> list[Message]:
    return [message for message, seen in sights.items() if any(hand.is_done(place) for hand, place in seen[:-1])]


def _again_while_leased(sights: dict[Message, list[Sight]], lease: float) -> list[Message]:
    """What was given back may come at once. Whether an ack got through whose answer was lost makes no difference: either
    the message is done, or it comes once the lease has lapsed."""
    return [
        message
        for message, seen in sights.items()
        if any(
            later.hand.got.received < earlier.hand.got.sent + lease and not earlier.hand.gave_back(earlier.place)
            for n, earlier in enumerate(seen)
            for later in seen[n + 1 :]
        )
    ]


def _refused_in_time(sights: dict[Message, list[Sight]], lease: float) -> list[Message]:
    return [
        message
        for message, seen in sights.items()
        for hand, place in seen
        if hand.heard
        and not hand.heard.success[place]
        and not hand.heard.again
        and hand.heard.at < hand.got.sent + lease
        and not hand.gave_back(place)
    ]
