"""The address of a processor cannot change while payments are unsettled there, because they must be looked up there."""

import pytest
from django.test import Client
from django.urls import reverse

from payments.models import Processor
from payments.states import FAILED, PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN
from registry.models import AuditEntry
from tests.factories import make_payment, make_person, make_processor, make_tenant

HERE, ELSEWHERE = "http://old.example:8001", "http://new.example:8001"


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def processor(acme):
    return make_processor(acme, kind="http", url=HERE)


@pytest.fixture
def operator():
    client = Client()
    client.force_login(make_person("olga"))
    return client


def change(operator: Client, processor: Processor, **fields) -> str:
    """What the page says after these changes; nothing when it took them."""
    address = reverse("admin:payments_processor_change", args=[processor.pk])
    given = {"url": processor.url, "fee": "0.05", "reason": "they have moved", **fields}
    answer = operator.post(address, given)
    return "" if answer.status_code == 302 else answer.content.decode()


def url_of(processor: Processor) -> str:
    return Processor.objects.get(pk=processor.pk).url


@pytest.mark.parametrize("state", [PROCESSING, UNCERTAIN, REQUIRES_ACTION])
def test_the_address_cannot_change_while_payments_are_unsettled_there_and_their_number_is_shown(
    operator, acme, processor, state
):
    make_payment(acme, status=state, processor=processor)
    make_payment(acme, status=state, processor=processor)

    said = change(operator, processor, url=ELSEWHERE)

    assert "2 payments are under way or in doubt here" in said
    assert "Disable this processor and add a new one" in said
    assert url_of(processor) == HERE
    assert not AuditEntry.objects.exists()


def test_the_address_can_change_once_nothing_is_unsettled_there(operator, acme, processor):
    for state in (QUEUED, SUCCEEDED, FAILED):
        make_payment(acme, status=state, processor=processor)

    said = change(operator, processor, url=ELSEWHERE)

    assert said == ""
    assert url_of(processor) == ELSEWHERE


def test_uncertain_payments_at_another_processor_or_tenant_do_not_matter(operator, acme, processor):
    make_payment(acme, status=UNCERTAIN, processor=make_processor(acme, "fallback"))
    stranger = make_tenant("other")
    make_payment(stranger, status=UNCERTAIN, processor=make_processor(stranger))

    said = change(operator, processor, url=ELSEWHERE)

    assert said == ""
    assert url_of(processor) == ELSEWHERE


def test_the_fee_may_change_while_payments_are_uncertain(operator, acme, processor):
    make_payment(acme, status=UNCERTAIN, processor=processor)

    said = change(operator, processor, fee="0.07")

    assert said == ""
    assert str(Processor.objects.get(pk=processor.pk).fee) == "0.070000"
