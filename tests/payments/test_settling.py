"""What settles a payment, and where, whatever its processors do."""

from tests.conftest import Api, eventually


async def test_an_accepted_payment_is_booked_at_the_cheaper_processor(api: Api, worker, default, fallback):
    payment = await api.pay("19.90")

    settled = await api.until(payment["correlationId"], "succeeded")

    assert settled["processor"] == "default"
    assert list(default.booked) == [payment["correlationId"]]
    assert not fallback.received


async def test_a_processor_that_books_and_never_answers_is_asked_again_and_no_other(
    api: Api, worker, default, fallback
):
    default.books_but_never_answers()
    payment = await api.pay()
    await eventually(lambda: default.booked)
    default.recovers()

    settled = await api.until(payment["correlationId"], "succeeded")

    assert settled["processor"] == "default"
    assert not fallback.received
