"""Amounts that people type: understood, or refused with both interpretations."""

from decimal import Decimal

import pytest
from babel.numbers import format_decimal
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from payments.errors import AmountRefused
from payments.models import Payment, Plan, Refund
from payments.money import CURRENCIES, decimal_text, exponent, typed_amount
from payments.states import SUCCEEDED
from registry.models import Tenant
from tests.factories import in_thread, make_payment, make_person, make_processor, make_tenant
from tests.payments.test_refund_pages import refund_form
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.registry.test_admin import WHY, as_person, text


@pytest.mark.parametrize(
    ("typed", "currency", "units"),
    [
        ("19.90", "BRL", 1990),
        ("19,90", "BRL", 1990),
        ("19,9", "BRL", 1990),
        ("5", "BRL", 500),
        ("1.500,00", "BRL", 150_000),
        ("1,500.00", "USD", 150_000),
        ("1.500.000", "BRL", 150_000_000),
        ("1,500,000.5", "USD", 150_000_050),
        ("1 500,00", "EUR", 150_000),
        ("1\u00a0500,00", "EUR", 150_000),
        ("1\u202f500", "EUR", 150_000),
        ("1'500.00", "CHF", 150_000),
        ("1\u2019500", "CHF", 150_000),
        ("1,500", "JPY", 1500),
        ("1.500", "JPY", 1500),
        ("1234,500", "JPY", 1_234_500),
        ("1.500", "KWD", 1500),
        ("1,500.250", "KWD", 1_500_250),
        ("1,5", "KWD", 1500),
        ("12,34,567.89", "INR", 123_456_789),
        ("1,50,000", "INR", 15_000_000),
        ("1.5000", "CLF", 15_000),
        (" R$ 19,90 ", "BRL", 1990),
        ("19.90 BRL", "BRL", 1990),
        ("$5", "USD", 500),
        ("￥１，５００", "JPY", 1500),
        ("0.50", "BRL", 50),
        ("1500.000", "KWD", 1_500_000),
    ],
)
def test_a_typed_amount_is_understood(typed, currency, units):
    assert typed_amount(typed, currency) == units


@pytest.mark.parametrize(
    ("typed", "currency", "readings"),
    [
        ("1.500", "BRL", ("1500.00", "1.50")),
        ("1,500", "USD", ("1500.00", "1.50")),
        ("1.505", "BRL", ("1505.00", "1.505")),
        ("999,999", "EUR", ("999999.00", "999.999")),
        ("1,500", "KWD", ("1500.000", "1.500")),
        ("1.500", "CLF", ("1500.0000", "1.5000")),
        ("R$ 1.500", "BRL", ("1500.00", "1.50")),
        ("1234.500", "BRL", ("1234500.00", "1234.50")),
        ("1234,500", "KWD", ("1234500.000", "1234.500")),
    ],
)
def test_an_ambiguous_separator_is_refused_with_both_interpretations(typed, currency, readings):
    with pytest.raises(AmountRefused) as refused:
        typed_amount(typed, currency)

    assert all(reading in refused.value.detail for reading in readings)


@pytest.mark.parametrize(
    ("typed", "currency"),
    [
        ("", "BRL"), (" ", "BRL"), ("0", "BRL"), ("0.00", "BRL"), ("-5", "BRL"), ("\u22125", "BRL"), ("+5", "BRL"), ("1e3", "BRL"),
        ("19.901", "BRL"), ("1234.500", "BRL"), ("0.500", "BRL"), ("19.9000", "BRL"), ("1,500.000", "USD"), ("1,500.00", "JPY"),
        ("1.5", "JPY"), ("0.500", "JPY"), ("1.50.00", "BRL"), ("1,50,000", "BRL"), ("1.500,00.00", "BRL"), ("1.500 000", "BRL"),
        ("1 500.000,00", "BRL"), ("1,500,00", "USD"), ("01.50", "BRL"), ("0.500.000", "BRL"), (".50", "BRL"), ("5.", "BRL"), ("1 50", "BRL"),
        ("US$ 5", "BRL"), ("5 EUR", "BRL"), ("٥", "BRL"), ("1_000", "BRL"), ("NaN", "BRL"), ("Infinity", "BRL"), ("9" * 400, "BRL"),
        ("10000000000000.00", "BRL"), ("1..5", "BRL"), ("1/2", "BRL"), ("five", "BRL"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_amount_of_the_currency_is_refused(typed, currency):
    with pytest.raises(AmountRefused):
        typed_amount(typed, currency)


@given(
    units=st.integers(1, 10**13),
    currency=st.sampled_from(sorted(CURRENCIES)),
    locale=st.sampled_from(["en", "de", "pt_BR", "fr", "sv", "en_IN"]),
)
def test_an_amount_in_the_format_of_any_language_is_understood_or_refused(units, currency, locale):
    """Refused only where it is unclear; never another amount."""
    if locale == "en_IN" and currency != "INR":
        locale = "en"
    digits = exponent(currency)
    form = "#,##,##0" if locale == "en_IN" else "#,##0"
    written = format_decimal(
        Decimal(decimal_text(units, currency)), form + ("." + "0" * digits if digits else ""), locale=locale
    )

    try:
        assert typed_amount(written, currency) == units
    except AmountRefused as error:
        assert digits == 3 and "may mean" in error.detail


@given(
    typed=st.text(alphabet="0123456789.,' -", max_size=14),
    currency=st.sampled_from(["BRL", "JPY", "KWD", "CLF", "INR"]),
)
def test_any_text_is_understood_by_its_digits_or_refused(typed, currency):
    try:
        units = typed_amount(typed, currency)
    except AmountRefused:
        return

    assert str(units).rstrip("0").lstrip("0") == "".join(filter(str.isdigit, typed)).rstrip("0").lstrip("0")


# -- Every field -----------------------------------------------------------------------------------------------------


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def operator():
    return as_person(make_person("olga"))


def paid(tenant: Tenant) -> Payment:
    return make_payment(tenant, amount=1_000_000, status=SUCCEEDED, processor=make_processor(tenant, "sandbox"))


def test_a_refund_in_the_admin_of_one_thousand_five_hundred_is_not_one_and_a_half(operator, acme):
    payment = paid(acme)

    unclear = text(refund_form(operator, payment, amount="1.500"))
    refund_form(operator, payment, amount="1.500,00")

    assert "may mean 1500.00 or 1.50" in unclear
    assert [one.amount for one in Refund.objects.all()] == [150_000]


async def test_a_refund_on_the_tenants_page_is_read_in_the_same_way(visiting: As, tenant):  # noqa: F811 - the fixture
    payment = await in_thread(paid, tenant)
    address = f"/payments/{payment.correlation_id}/refund?tenant={tenant.slug}"
    async with visiting(await in_thread(lambda: make_person(tenant=tenant, role="owner"))) as visit:
        unclear, form = await visit.post(address, amount="1.500", reason=WHY, key="k1")
        await visit.post(address, amount="1.500,00", reason=WHY, key="k1")

    assert unclear == 422
    assert "may mean 1500.00 or 1.50" in form
    assert await in_thread(lambda: [refund.amount for refund in Refund.objects.all()]) == [150_000]


async def test_a_test_payment_is_read_in_the_same_way(visiting: As, tenant):  # noqa: F811 - the fixture
    await in_thread(make_processor, tenant, "sandbox")
    address = f"/test-payment?tenant={tenant.slug}"
    async with visiting(await in_thread(lambda: make_person(tenant=tenant, role="owner"))) as visit:
        _, page = await visit.post(address, amount="1.500", description="")
        await visit.post(address, amount="1.500,00", description="")

    assert "may mean 1500.00 or 1.50" in page
    assert await in_thread(lambda: [one.amount for one in Payment.objects.filter(tenant=tenant)]) == [150_000]


@pytest.mark.parametrize(("typed", "limit"), [("1000", 1000), ("1,500,000", 1_500_000), ("1 500", 1500), ("", None)])
def test_a_tenants_limit_may_have_separators(operator, acme, typed, limit):
    answer = change(operator, acme, max_amount=typed)

    acme.refresh_from_db()
    assert (answer.status_code, acme.max_amount) == (302, limit)


@pytest.mark.parametrize("typed", ["1.000", "1,500", "100.00", "100,0", "1e3", "-"])
def test_a_tenants_limit_is_not_cut_at_its_separator(operator, acme, typed):
    answer = change(operator, acme, max_amount=typed)

    acme.refresh_from_db()
    assert (answer.status_code, acme.max_amount) == (200, None)


def change(client, tenant: Tenant, **fields):
    address = reverse("admin:registry_tenant_change", args=[tenant.pk])
    return client.post(address, {"name": "Acme", "currency": "BRL", "settings": "{}", "reason": WHY, **fields})


def test_the_price_of_a_plan_is_not_cut_at_its_separator(operator):
    fields = {"slug": "gold", "name": "Gold", "currency": "BRL", "fee_share": "0.01", "trial_days": 7, "position": 3}

    answer = operator.post("/admin/payments/plan/add/", {**fields, "price": "1.000", "reason": WHY})

    assert answer.status_code == 200
    assert not Plan.objects.exists()
