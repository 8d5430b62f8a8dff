"""Keys of a processor: validated, encrypted, rotated with an overlap, and never shown."""

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client, override_settings
from django.urls import reverse

from payments.models import Processor
from payments.routing import accounts
from payments.states import PROCESSING, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN
from registry.models import AuditEntry
from tests.factories import make_payment, make_person, make_stripe, make_tenant

KEY, HOOK = "sk_test_4eC39HqLyjWDarjtT1zdp7dc", "whsec_c2VjcmV0"
LIVE = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"


@pytest.fixture
def acme():
    return make_tenant("acme")


def command(*words: str) -> str:
    out = StringIO()
    call_command("processor", *words, stdout=out)
    return out.getvalue()


def add(*options: str, kind: str = "stripe") -> str:
    return command("add", "acme", "cards", "--kind", kind, *(word for one in options for word in ("--option", one)))


def stored(name: str = "cards") -> Processor:
    return Processor.objects.get(name=name)


def everything_written() -> str:
    """What the database has of processors and their audit, as text."""
    rows = [str(row) for model in (Processor, AuditEntry) for row in model.objects.values()]
    return "".join(rows)


def test_secret_options_are_encrypted_and_the_others_stay(acme):
    said = add(f"secretKey={KEY}", f"webhookSecret={HOOK}", "publishableKey=pk_test_1")

    assert stored().options == {"publishableKey": "pk_test_1"}
    assert accounts.opened(stored()) == {"secretKey": KEY, "webhookSecrets": [HOOK]}
    assert KEY not in said + everything_written() and HOOK not in said + everything_written()


@pytest.mark.parametrize("key", ["sk_live_4eC39HqLyjWDarjtT1zdp7dc", "rk_live_4eC39HqLyjWDarjtT1zdp7dc"])
@pytest.mark.parametrize(("production", "mode"), [(False, "live"), (True, "sandbox")])
def test_a_live_key_is_for_live_tenants_in_production_only(acme, settings, key, production, mode):
    settings.PRODUCTION = production
    acme.mode = mode
    acme.save()

    with pytest.raises(CommandError, match="nothing else may move real money") as error:
        add(f"secretKey={key}")

    assert key not in str(error.value)
    assert not Processor.objects.exists()


def test_a_live_key_of_a_live_tenant_is_taken_in_production(acme, settings):
    settings.PRODUCTION = True
    acme.mode = "live"
    acme.save()

    add("secretKey=sk_live_4eC39HqLyjWDarjtT1zdp7dc")

    assert accounts.opened(stored())["secretKey"].startswith("sk_live_")


@pytest.mark.parametrize("url", ["http://127.0.0.1:12111", "https://stripe.example"])
def test_a_live_key_is_sent_to_stripe_only(live, url):
    with pytest.raises(CommandError, match="leave the URL empty") as error:
        command("add", "acme", "cards", "--kind", "stripe", "--url", url, "--option", f"secretKey={LIVE}")

    assert LIVE not in str(error.value)
    assert not Processor.objects.exists()


def test_a_live_key_is_not_given_to_a_processor_elsewhere(live):
    make_stripe(live, "https://stripe.example", name="cards", secrets={"secretKey": KEY})

    with pytest.raises(CommandError, match="leave the URL empty"):
        command("secrets", "acme", "cards", "--option", f"secretKey={LIVE}")

    assert accounts.opened(stored()) == {"secretKey": KEY}


def test_the_admin_does_not_change_the_address_of_a_processor_with_a_live_key(live, operator):
    processor = make_stripe(live, "", name="cards", secrets={"secretKey": LIVE})

    page = operator.post(
        reverse("admin:payments_processor_change", args=[processor.pk]), fields(url="https://stripe.example")
    )

    assert "leave the URL empty" in page.content.decode()
    assert stored().url == ""


@pytest.fixture
def live(acme, settings):
    """A live tenant in production."""
    settings.PRODUCTION = True
    acme.mode = "live"
    acme.save()
    return acme


def test_a_live_tenant_in_production_takes_no_processor_that_moves_no_money(live):
    with pytest.raises(CommandError, match="moves no money"):
        command("add", "acme", "play", "--kind", "sandbox")

    assert not Processor.objects.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "wants --option secretKey"),
        (["secretKey=pk_test_1"], "wants --option secretKey"),
        (["secretKey=12"], "wants --option secretKey"),
        ([f"secretKey={KEY}", "webhookSecret=secret"], "begins with whsec_"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(acme, options, complaint):
    with pytest.raises(CommandError, match=complaint):
        add(*options)


def test_kinds_without_keys_accept_none(acme):
    with pytest.raises(CommandError, match="has no secrets"):
        add(f"secretKey={KEY}", kind="sandbox")


def test_a_new_webhook_secret_is_added_to_the_older_ones(acme):
    add(f"secretKey={KEY}", f"webhookSecret={HOOK}")

    for number in range(3):
        command("secrets", "acme", "cards", "--option", f"webhookSecret=whsec_{number}")

    assert accounts.opened(stored()) == {"secretKey": KEY, "webhookSecrets": ["whsec_2", "whsec_1", "whsec_0"]}
    assert AuditEntry.objects.filter(action="processor.secrets").count() == 3


@pytest.fixture
def sealed_by_a_lost_key(acme):
    """A processor whose secrets nobody can open any more."""
    with override_settings(SECRET_KEY="lost" * 16):
        return make_stripe(acme, "", name="cards", secrets={"secretKey": KEY, "webhookSecrets": [HOOK]})


def test_secrets_that_cannot_be_decrypted_are_replaced_by_a_full_set(acme, sealed_by_a_lost_key):
    command("secrets", "acme", "cards", "--option", "secretKey=sk_test_new", "--option", "webhookSecret=whsec_new")

    assert accounts.opened(stored()) == {"secretKey": "sk_test_new", "webhookSecrets": ["whsec_new"]}


@pytest.mark.parametrize("option", ["secretKey=sk_test_new", "webhookSecret=whsec_new"])
def test_secrets_that_cannot_be_decrypted_are_not_replaced_in_part(acme, sealed_by_a_lost_key, option):
    with pytest.raises(CommandError, match="give secretKey and webhookSecret together"):
        command("secrets", "acme", "cards", "--option", option)


def test_secrets_that_cannot_be_decrypted_stay_while_payments_are_unsettled_there(acme, sealed_by_a_lost_key):
    """Nobody can say any more whose key they were sent with."""
    make_payment(acme, status=UNCERTAIN, processor=sealed_by_a_lost_key)

    with pytest.raises(CommandError, match="1 payment is under way or in doubt here"):
        command("secrets", "acme", "cards", "--option", "secretKey=sk_test_new", "--option", "webhookSecret=whsec_new")


def test_other_options_are_no_secrets(acme):
    add(f"secretKey={KEY}")

    with pytest.raises(CommandError, match="are secrets"):
        command("secrets", "acme", "cards", "--option", "capture=manual")


def test_the_list_of_processors_shows_no_key(acme):
    add(f"secretKey={KEY}")

    said = command("list", "acme", "--json")

    assert json.loads(said)[0]["kind"] == "stripe"
    assert KEY not in said


# -- The admin -----------------------------------------------------------------------------------------------


@pytest.fixture
def operator():
    client = Client()
    client.force_login(make_person("olga"))
    return client


def fields(**more: str) -> dict[str, str]:
    return {
        "url": "",
        "fee": "0.03",
        "reason": "a new account",
        "secret_key": "",
        "webhook_secret": "",
        **more,
    }


def test_the_admin_shows_which_keys_exist_and_not_their_values(acme, operator):
    processor = make_stripe(acme, "", secrets={"secretKey": KEY, "webhookSecrets": [HOOK, "whsec_old"]})

    page = operator.get(reverse("admin:payments_processor_change", args=[processor.pk])).content.decode()

    assert "secret key, 2 webhook secrets" in page
    assert KEY not in page and HOOK not in page


def test_the_admin_stores_entered_keys_encrypted_only(acme, operator):
    given = fields(tenant=str(acme.pk), name="cards", kind="stripe", secret_key=KEY, webhook_secret=HOOK, enabled="on")

    answer = operator.post(reverse("admin:payments_processor_add"), given)

    assert answer.status_code == 302, answer.content.decode()
    assert accounts.opened(stored()) == {"secretKey": KEY, "webhookSecrets": [HOOK]}
    assert KEY not in everything_written() and HOOK not in everything_written()


def test_keys_entered_beside_options_in_the_admin_are_encrypted_and_not_stored_among_them(acme, operator):
    processor = make_stripe(acme, "", name="cards")
    given = fields(secret_key=KEY, option_capture="manual")

    operator.post(reverse("admin:payments_processor_change", args=[processor.pk]), given)

    assert stored().options == {"capture": "manual"}
    assert accounts.opened(stored())["secretKey"] == KEY
    assert KEY not in everything_written()


def test_empty_fields_keep_the_keys(acme, operator):
    processor = make_stripe(acme, "", name="cards", secrets={"secretKey": KEY})

    operator.post(reverse("admin:payments_processor_change", args=[processor.pk]), fields(fee="0.07"))

    assert str(stored().fee) == "0.070000"
    assert accounts.opened(stored()) == {"secretKey": KEY}


@pytest.mark.parametrize("state", [PROCESSING, UNCERTAIN, REQUIRES_ACTION])
def test_the_admin_keeps_the_secret_key_while_payments_are_unsettled_there(acme, operator, state):
    processor = make_stripe(acme, "", name="cards", secrets={"secretKey": KEY})
    make_payment(acme, status=state, processor=processor)

    change = reverse("admin:payments_processor_change", args=[processor.pk])
    page = operator.post(change, fields(secret_key="sk_test_other")).content.decode()
    beside = operator.post(change, fields(webhook_secret=HOOK))

    assert "1 payment is under way or in doubt here" in page
    assert beside.status_code == 302
    assert accounts.opened(stored()) == {"secretKey": KEY, "webhookSecrets": [HOOK]}


def test_the_admin_takes_another_secret_key_once_nothing_is_unsettled(acme, operator):
    processor = make_stripe(acme, "", name="cards", secrets={"secretKey": KEY})
    make_payment(acme, status=SUCCEEDED, processor=processor)

    operator.post(reverse("admin:payments_processor_change", args=[processor.pk]), fields(secret_key="sk_test_other"))

    assert accounts.opened(stored()) == {"secretKey": "sk_test_other"}


def test_a_key_that_the_admin_refuses_is_not_repeated(acme, operator):
    processor = make_stripe(acme, "", name="cards", secrets={"secretKey": KEY})
    wrong = "sk_live_51Secret"

    answer = operator.post(reverse("admin:payments_processor_change", args=[processor.pk]), fields(secret_key=wrong))

    page = answer.content.decode()
    assert "nothing else may move real money" in page
    assert wrong not in page + everything_written()
