"""Messages of the queue: tests/chaos/deliveries.py judges what producers and readers asked and heard."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.deliveries import Book, Got, Heard, Message, Says, named
from tests.chaos.traffic import faults_of
from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History
from tests.histories.entries import DeadLetter, Operation, SetAside

TAKEN = ("queued", "duplicate", "buffered")


def queue(history: History) -> Iterator[Fault]:
    book = Book()
    for one in history.operations:
        _write(book, one)
    dead: Counter[tuple[str, Message]] = Counter()
    for letter in history.of(DeadLetter):
        dead[letter.group, named(letter.partition, letter.transaction)] += 1
    yield from of(Kind.QUEUE, (f"set aside: {one.reason}" for one in history.of(SetAside) if not one.payment))
    for words in faults_of(book, history.end.waiting, dead, lease=history.end.lease):
        yield Fault(Kind.QUEUE, words)


def _write(book: Book, one: Operation) -> None:
    if one.path == "/api/v1/push" and one.status == 201:
        for item, result in zip(one.asked["items"], one.answer, strict=True):
            if result["status"] not in TAKEN:
                book.surprises.append(str(result))
            book.accepted.add(named(item["partition"], item["transactionId"]))
    elif one.path.startswith("/api/v1/pop/") and one.status == 200:
        messages = [named(message["partition"], message["transactionId"]) for message in one.answer["messages"]]
        group = one.query["consumerGroup"]
        book.write(Got(one.answer["leaseId"], group, one.invoked, one.completed, messages))
    elif one.path == "/api/v1/ack/batch" and one.asked is not None:
        _acked(book, one)


def _acked(book: Book, one: Operation) -> None:
    """All messages of one lease are acked together; `again` where an answer before was lost."""
    acks = one.asked["acknowledgments"]
    lease = acks[0]["leaseId"]
    again = book.hands[lease].says is not None
    book.write(Says(lease, [ack["status"] for ack in acks]))
    if one.status == 200:
        book.write(Heard(lease, [result["success"] for result in one.answer], one.completed, again))
