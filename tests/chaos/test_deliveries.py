"""The checks of deliveries report every fault, and report nothing that is allowed."""

import pytest

from tests.chaos.deliveries import COMPLETED, DEAD, FAILED, Book, Got, Heard, Message, Says, faults

LEASE = 2.0  # seconds
A1, A2, A3 = (Message("p", "a", number) for number in (1, 2, 3))


def book(*accepted: Message) -> Book:
    made = Book()
    made.accepted.update(accepted)
    return made


def hand(
    made: Book, at: float, *messages: Message, says: str = COMPLETED, success: bool | None = True, again: bool = False
) -> None:
    """A pop at that second; `success` None: its reader never heard."""
    lease = f"lease-{len(made.hands)}"
    made.write(Got(lease, "g", at, at + 0.1, list(messages)))
    made.write(Says(lease, [says] * len(messages)))
    if success is not None:
        made.write(Heard(lease, [success] * len(messages), at + 0.2, again))


def verdict(made: Book) -> list[str]:
    return [fault.split(": ")[1].partition(" ")[2] for fault in faults(made, ["g"], lease=LEASE)]


def test_messages_delivered_once_and_in_order_are_no_fault():
    made = book(A1, A2, A3)
    hand(made, 1, A1, A2)
    hand(made, 2, A3)

    assert verdict(made) == []


@pytest.mark.parametrize("says", [COMPLETED, DEAD])
def test_a_dropped_message_is_a_fault(says: str):
    made = book(A1, A2, A3)
    hand(made, 1, A1, A3, says=says)

    assert verdict(made) == ["accepted and never delivered"]


def test_a_message_dropped_for_one_group_is_a_fault():
    made = book(A1)
    hand(made, 1, A1)

    assert len([*faults(made, ["g", "other"], lease=LEASE)]) == 1


def test_an_invented_message_is_a_fault():
    made = book(A1)
    hand(made, 1, A1, A2)

    assert verdict(made) == ["delivered and never accepted"]


@pytest.mark.parametrize("hands", [[(A1, A3, A2)], [(A1,), (A3,), (A2,)]], ids=["in one hand", "over hands"])
def test_swapped_messages_are_a_fault(hands: list[tuple[Message, ...]]):
    made = book(A1, A2, A3)
    for n, messages in enumerate(hands):
        hand(made, n, *messages)

    assert verdict(made) == ["delivered for the first time after a later one of their producer"]


def test_other_producers_and_other_partitions_have_an_order_of_their_own():
    others = Message("p", "b", 1), Message("other", "a", 1)
    made = book(A2, A3, *others)
    hand(made, 1, A2, A3, *others)

    assert verdict(made) == []


def test_a_message_delivered_again_after_its_ack_is_a_fault():
    made = book(A1)
    hand(made, 1, A1)
    hand(made, 9, A1)

    assert verdict(made) == ["delivered again after they were done"]


@pytest.mark.parametrize("success", [None, False])
def test_a_message_delivered_again_during_its_lease_is_a_fault(success: bool | None):
    made = book(A1)
    hand(made, 1, A1, success=success, again=True)
    hand(made, 2, A1)

    assert verdict(made) == ["delivered again while they were leased"]


@pytest.mark.parametrize("success", [None, False])
def test_a_message_may_be_delivered_again_after_its_lease_has_expired(success: bool | None):
    made = book(A1)
    hand(made, 1, A1, success=success, again=True)
    hand(made, 3.1, A1)

    assert verdict(made) == []


def test_a_returned_message_and_those_behind_it_may_be_delivered_again_at_once():
    made = book(A1, A2)
    hand(made, 1, A1, A2, says=FAILED)
    hand(made, 1.3, A1, A2)

    assert verdict(made) == []


def test_an_ack_refused_during_its_lease_is_a_fault():
    made = book(A1)
    hand(made, 1, A1, success=False)
    hand(made, 5, A1)

    assert verdict(made) == ["refused under a lease that was alive"]


def test_an_unexpected_response_is_a_fault():
    made = book()
    made.surprises.append("400 no")

    assert len([*faults(made, ["g"], lease=LEASE)]) == 1
