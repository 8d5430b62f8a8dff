"""Export of all data of a tenant, and erasure of its personal data without gaps in the books."""

import json
import stat
import zipfile
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models
from django.utils import timezone

from payments.books import ledger
from payments.models import Attempt, InboundEvent, LedgerEntry, Payment, Plan, Rollup, Subscription
from payments.states import FAILED, QUEUED, REQUIRES_ACTION, SUCCEEDED
from queueing.broker import crypto
from queueing.models import Message, Partition, Queue, WebhookDelivery
from registry.models import ApiKey, AuditEntry, Membership, Tenant
from registry.tenants import erasure, export
from registry.tenants.audit_chain import verify_sync
from tests.factories import make_payment, make_person, make_processor, make_tenant

APPS = export.APPS
SECRET = "Ms Miller, 5 Elm Street"


@pytest.fixture
def acme():
    return make_tenant("acme", name="Miller & Sons")


@pytest.fixture
def shop(acme):
    """A tenant with something of everything that people wrote."""
    processor = make_processor(acme, "default", secrets=b"sealed", options={"note": SECRET})
    payment = make_payment(
        acme, status=SUCCEEDED, processor=processor, description=SECRET, metadata={"name": SECRET}, method={"x": SECRET}
    )
    roll_up(payment)
    Attempt.objects.update(action={"clientSecret": SECRET})
    ApiKey.objects.create(tenant=acme, prefix="abcdef", digest=b"digest", name=SECRET, scopes=["read"])
    receive(acme, processor, payment)
    deliver(acme, payment)
    push(acme, SECRET.encode())
    make_person("olga", tenant=acme, email="olga@example.com", first_name="Olga")
    return acme


def roll_up(payment) -> None:
    for width, at in ((1, payment.requested_at.replace(microsecond=0)),
                      (3600, payment.requested_at.replace(minute=0, second=0, microsecond=0))):  # fmt: skip
        Rollup.objects.create(
            tenant=payment.tenant, width=width, starts_at=at, processor_id=payment.processor_id, currency="BRL",
            payments=1, amount=payment.amount, fee=payment.fee,
        )  # fmt: skip


def receive(tenant, processor, payment, **fields) -> InboundEvent:
    return InboundEvent.objects.create(
        tenant=tenant,
        processor=processor,
        payment_id=payment.pk,
        **{"event_id": str(uuid4()), "type": "x", "created": timezone.now(), "body": SECRET.encode()}
        | {"headers": {"h": SECRET}, "source": "delivery", "status": "done", **fields},
    )


def deliver(tenant, payment, **fields) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        tenant=tenant,
        subject=payment.correlation_id,
        **{"endpoint_id": 1, "message_id": str(uuid4()), "type": "x", "body": SECRET, "status": "delivered", **fields},
    )


def push(tenant, payload: bytes, key_id: str | None = None, transaction: str = "t") -> Message:
    queue, _ = Queue.objects.get_or_create(tenant=tenant, name="orders")
    partition, _ = Partition.objects.get_or_create(tenant=tenant, queue=queue, name="p")
    return Message.objects.create(
        tenant=tenant, partition=partition, seq=Message.objects.count() + 1, id=uuid4(), transaction_id=transaction,
        payload=payload, key_id=key_id, created_at=timezone.now(),
    )  # fmt: skip


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("tenant", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def exported(slug: str, *options: str) -> dict[str, list[dict]]:
    tables: dict[str, list[dict]] = {}
    for line in run("export", slug, *options).splitlines():
        found = json.loads(line)
        tables.setdefault(found["table"], []).append(found["row"])
    return tables


# -- Which tables there are ---------------------------------------------------------------------------------------


def all_models() -> list[type[models.Model]]:
    return [m for app in APPS for m in apps.get_app_config(app).get_models(include_auto_created=True)]


def test_every_table_is_exported_or_left_out_with_a_reason():
    found = {source.label for source in export.sources()}

    forgotten = [m._meta.label for m in all_models() if m._meta.label not in found | export.LEFT_OUT.keys()]

    assert forgotten == []
    assert all(export.LEFT_OUT.values())
    assert not found & export.LEFT_OUT.keys()


def test_tables_named_for_export_and_erasure_exist():
    known = {m._meta.label: {f.column for f in m._meta.concrete_fields} for m in all_models()}
    columns = {f"{label}.{column}" for label, found in known.items() for column in found}

    personal = {f"{label}.{column}" for label, found in erasure.PERSONAL.items() for column in found}

    assert (export.TABLES.keys() | export.LEFT_OUT.keys()) - known.keys() == {"auth.User"}
    assert (personal | erasure.KEPT.keys()) - columns == set()
    assert personal & erasure.KEPT.keys() == set()


def test_every_text_of_a_tenant_is_blanked_or_kept_with_a_reason():
    undecided = [
        f"{source.label}.{field.column}"
        for source in export.sources()
        if source.label != "auth.User"
        for field in source.model._meta.concrete_fields
        if says_anything(field)
        and field.column not in erasure.PERSONAL.get(source.label, {})
        and f"{source.label}.{field.column}" not in erasure.KEPT
    ]

    assert undecided == []


def says_anything(field: models.Field) -> bool:
    """Whether people's words fit in."""
    if isinstance(field, models.CharField):
        return (field.max_length or 0) > 100 and not field.choices
    return isinstance(field, (models.TextField, models.JSONField, models.BinaryField))


# -- Export ----------------------------------------------------------------------------------------------------------


def test_everything_of_a_tenant_is_exported(shop):
    tables = exported("acme")

    assert [row["slug"] for row in tables["registry.Tenant"]] == ["acme"]
    assert tables["payments.Payment"][0]["metadata"] == {"name": SECRET}
    assert len(tables["payments.LedgerEntry"]) == 3
    assert tables["payments.InboundEvent"][0]["body"] == SECRET
    assert tables["queueing.Message"][0] | {"payload": SECRET, "queue": "orders"} == tables["queueing.Message"][0]
    assert tables["auth.User"][0]["email"] == "olga@example.com"
    assert tables["registry.AuditEntry"][0]["action"] == "tenant.export"


def test_no_digest_no_sealed_secret_and_no_password_is_exported(shop):
    tables = exported("acme")

    assert "digest" not in tables["registry.ApiKey"][0]
    assert "secrets" not in tables["payments.Processor"][0]
    assert "password" not in tables["auth.User"][0]


def test_nothing_of_another_tenant_is_exported(shop):
    other = make_tenant("other")
    make_payment(other, status=SUCCEEDED, processor=make_processor(other), description="theirs")
    make_person("pete", tenant=other)

    said = run("export", "acme")

    assert "theirs" not in said
    assert "pete" not in said
    assert "theirs" in run("export", "other")


def test_a_number_is_exported_as_it_was_written(acme):
    payment = make_payment(acme)
    with_number = (
        """UPDATE payments_payment SET metadata = '{"n": 1.10, "big": 12345678901234567890.5}' WHERE id = %s"""
    )
    from django.db import connection

    connection.cursor().execute(with_number, [payment.pk])

    assert '{"n": 1.10, "big": 12345678901234567890.5}' in run("export", "acme")


def test_binary_values_are_exported_in_base64(acme):
    push(acme, b"\xff\x00")

    assert exported("acme")["queueing.Message"][0]["payload"] == {"base64": "/wA="}


def test_encrypted_messages_are_exported_decrypted_only_on_request(acme, settings, monkeypatch):
    monkeypatch.setattr(crypto, "_cipher", crypto.Cipher({"k1": b"k" * 32}, setting=crypto.SETTING))
    place = (acme.pk, "orders", "p", "t")
    push(acme, crypto.encrypt(b'{"a": 1}', key_id="k1", place=place), "k1")

    sealed, clear = exported("acme"), exported("acme", "--decrypt")

    assert sealed["queueing.Message"][0]["key_id"] == "k1"
    assert '"a": 1' not in json.dumps(sealed["queueing.Message"])
    assert clear["queueing.Message"][0]["payload"] == '{"a": 1}'


def test_a_zip_has_a_member_per_table_and_is_readable_by_its_owner_only(shop, tmp_path):
    path = tmp_path / "acme.zip"

    run("export", "acme", "--output", str(path))

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        [payment] = archive.read("payments.Payment.ndjson").splitlines()
    assert json.loads(payment)["description"] == SECRET
    assert {"registry.Tenant.ndjson", "payments.LedgerEntry.ndjson", "queueing.Message.ndjson"} <= set(names)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rows_are_read_a_few_at_a_time(acme, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "ROWS", 2)
    for _ in range(5):
        make_payment(acme)

    run("export", "acme", "--output", str(tmp_path / "out.ndjson"))

    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [line["table"] for line in lines].count("payments.Payment") == 5


# -- Erasure ---------------------------------------------------------------------------------------------------------


def erase(*options: str) -> dict[str, int]:
    return json.loads(run("erase", "acme", "--reason", "asked to", "--yes", "--json", *options))


def test_nothing_is_erased_without_yes(shop):
    with pytest.raises(CommandError, match="say --yes"):
        run("erase", "acme", "--reason", "asked to")

    assert Payment.objects.get().description == SECRET
    assert Tenant.objects.get().status == "active"


def test_texts_of_people_are_erased_and_the_ledger_is_unchanged(shop):
    before = (list(LedgerEntry.objects.values()), list(Rollup.objects.values()))

    erase()

    assert SECRET not in run("export", "acme")
    assert (list(LedgerEntry.objects.values()), list(Rollup.objects.values())) == before
    assert ledger.prove_sync(tenant_id=shop.pk).sound
    payment = Payment.objects.get()
    assert (payment.amount, payment.status, payment.metadata, payment.method) == (1990, SUCCEEDED, None, None)


def test_the_tenant_is_closed_and_its_keys_end(shop):
    erase()

    tenant = Tenant.objects.get()
    assert (tenant.status, tenant.open, tenant.name) == ("closed", False, "acme")
    assert ApiKey.objects.get().revoked_at is not None


def test_the_audit_trail_stays_valid_and_records_the_erasure(shop):
    erase()

    entry = AuditEntry.objects.get(action="tenant.erase")
    assert (entry.reason, entry.tenant_id) == ("asked to", shop.pk)
    assert entry.detail["changed"]["payments.Payment"] == 1
    assert verify_sync(shop.pk).sound


def test_accounts_of_this_tenant_only_are_anonymized_and_others_stay(shop):
    both = make_person("pete", tenant=shop, email="pete@example.com")
    Membership.objects.create(tenant=make_tenant("other"), user=both, role="viewer")

    erase()

    people = get_user_model().objects
    olga = people.get(email="")
    assert (olga.username, olga.first_name, olga.is_active) == (f"erased-{olga.pk}", "", False)
    assert not olga.has_usable_password()
    assert (people.get(username="pete").email, people.get(username="pete").is_active) == ("pete@example.com", True)
    assert Membership.objects.get().tenant.slug == "other"


def test_other_tenants_are_left_alone(shop):
    other = make_tenant("other", name="Theirs")
    make_payment(other, status=FAILED, description="theirs")

    erase()

    assert Payment.objects.get(tenant=other).description == "theirs"
    assert Tenant.objects.get(slug="other").name == "Theirs"


def test_erasing_again_changes_nothing(shop):
    assert erase()

    assert erase() == {}
    assert AuditEntry.objects.filter(action="tenant.erase").count() == 1


def test_an_interrupted_erasure_is_completed_by_the_next(shop, monkeypatch):
    monkeypatch.setattr(erasure, "ROWS", 2)
    for _ in range(5):
        make_payment(shop, status=FAILED, description=SECRET)
    blank, seen = erasure._page, []

    def dies(*arguments, **options):
        seen.append(arguments)
        if len(seen) == 4:
            raise RuntimeError("killed")
        return blank(*arguments, **options)

    monkeypatch.setattr(erasure, "_page", dies)
    with pytest.raises(RuntimeError):
        erase()
    monkeypatch.setattr(erasure, "_page", blank)

    erase()

    assert SECRET not in run("export", "acme")


@pytest.mark.parametrize("status", [QUEUED, REQUIRES_ACTION])
def test_a_tenant_with_open_payments_is_closed_at_once_and_erased_once_they_are_final(shop, status):
    payment = make_payment(shop, status=status, description=SECRET)

    with pytest.raises(CommandError, match="has 1 payments that are not settled"):
        erase()

    assert Tenant.objects.get().status == "closed"
    assert Payment.objects.get(pk=payment.pk).description == SECRET
    Payment.objects.filter(pk=payment.pk).update(status=FAILED)
    erase()
    assert Payment.objects.get(pk=payment.pk).description == ""


def test_an_active_subscription_must_be_ended_first(shop):
    plan = Plan.objects.create(slug="basic", name="Basic")
    Subscription.objects.create(tenant=shop, plan=plan, status="active", stripe_subscription="sub_1")

    with pytest.raises(CommandError, match="1 subscription at Stripe that goes on"):
        erase()

    Subscription.objects.update(status="canceled")
    assert erase()


def test_single_payments_are_erased_and_the_tenant_goes_on(shop):
    kept = make_payment(shop, status=FAILED, description="other words")
    gone = Payment.objects.get(description=SECRET)

    changed = erase("--payment", str(gone.correlation_id))

    gone.refresh_from_db()
    assert (gone.description, gone.metadata) == ("", None)
    assert bytes(InboundEvent.objects.get().body) == b""
    assert WebhookDelivery.objects.get().body == ""
    assert changed["payments.Payment"] == 1
    assert Payment.objects.get(pk=kept.pk).description == "other words"
    assert Tenant.objects.get().status == "active"
    assert AuditEntry.objects.get().detail["payments"] == [str(gone.correlation_id)]


def test_open_deliveries_of_a_payment_stay_unchanged_until_they_are_sent(shop):
    payment = Payment.objects.get()
    waiting = deliver(shop, payment, status="pending", run_at=timezone.now() + timedelta(hours=1))

    erase("--payment", str(payment.correlation_id))

    waiting.refresh_from_db()
    assert waiting.body == SECRET


THINGS = {
    "charge": {"object": "charge", "payment_intent": "pi_1", "billing_details": {"name": SECRET}},
    "refund": {"object": "refund", "payment_intent": "pi_1", "charge": "ch_1", "reason": SECRET},
    "dispute": {"object": "dispute", "payment_intent": "pi_1", "evidence": {"customer_name": SECRET}},
    "intent": {"object": "payment_intent", "id": "pi_1", "receipt_email": SECRET},
    "odd": {"object": "charge", "payment_intent": "pi_1", "description": "\0", "billing_details": {"name": SECRET}},
}


def unhandled(tenant, thing: dict) -> InboundEvent:
    """An event of a processor that knows no payment of ours, because nobody was interested in it."""
    body = json.dumps({"type": "x", "data": {"object": thing}}).encode()
    event = receive(tenant, tenant.processors.get(), Payment.objects.get(description=SECRET), body=body)
    InboundEvent.objects.filter(pk=event.pk).update(payment_id=None)
    return event


@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_events_that_name_a_payment_are_erased_with_it_although_they_were_not_handled(shop, thing):
    payment = Payment.objects.get()
    Attempt.objects.update(reference="pi_1")
    event, another = unhandled(shop, thing), unhandled(shop, {"payment_intent": "pi_12", "name": SECRET})

    erase("--payment", str(payment.correlation_id))

    event.refresh_from_db()
    another.refresh_from_db()
    assert (bytes(event.body), event.headers) == (b"", {})
    assert SECRET.encode() in bytes(another.body)


def test_events_are_searched_a_few_at_a_time_however_few_name_the_payment(shop, monkeypatch):
    """No index finds them: one statement over all bodies would run into the statement time-out."""
    monkeypatch.setattr(erasure, "ROWS", 2)
    payment = Payment.objects.get()
    for n in range(5):
        unhandled(shop, {"id": f"evt_{n}", "payment_intent": "pi_other", "name": "somebody else"})
    event = unhandled(shop, {"metadata": {"registry_payment": str(payment.correlation_id)}, "name": SECRET})
    page, pages = erasure._page, []

    def counted(model, *arguments, **options):
        pages.append(model)
        return page(model, *arguments, **options)

    monkeypatch.setattr(erasure, "_page", counted)
    erase("--payment", str(payment.correlation_id))

    assert pages.count(InboundEvent) > InboundEvent.objects.count() / 2
    assert bytes(InboundEvent.objects.get(pk=event.pk).body) == b""


def test_events_with_the_id_of_a_payment_are_erased_with_it(shop):
    payment = Payment.objects.get()
    event = unhandled(shop, {"metadata": {"registry_payment": str(payment.correlation_id)}, "name": SECRET})

    erase("--payment", str(payment.correlation_id))

    assert bytes(InboundEvent.objects.get(pk=event.pk).body) == b""


def test_a_payment_with_an_open_event_is_not_final(shop):
    payment = Payment.objects.get()
    Attempt.objects.update(reference="pi_1")
    event = unhandled(shop, THINGS["refund"])
    InboundEvent.objects.filter(pk=event.pk).update(status="received")

    with pytest.raises(CommandError, match="not over yet"):
        erase("--payment", str(payment.correlation_id))

    InboundEvent.objects.filter(pk=event.pk).update(status="dead")
    erase("--payment", str(payment.correlation_id))
    assert bytes(InboundEvent.objects.get(pk=event.pk).body) == b""


def test_an_open_event_delays_the_erasure_of_the_tenant(shop):
    event = unhandled(shop, THINGS["refund"])
    InboundEvent.objects.filter(pk=event.pk).update(status="received")

    with pytest.raises(CommandError, match="has 1 events of processors that are not handled"):
        erase()

    assert (Tenant.objects.get().status, Payment.objects.get().description) == ("closed", SECRET)
    InboundEvent.objects.filter(pk=event.pk).update(status="done")
    erase()
    assert SECRET not in run("export", "acme")


def test_an_unknown_or_open_payment_is_refused_and_nothing_is_erased(shop):
    payment, standing = Payment.objects.get(), make_payment(shop)

    with pytest.raises(CommandError, match="has no payment"):
        erase("--payment", str(payment.correlation_id), "--payment", str(uuid4()))
    with pytest.raises(CommandError, match="not over yet"):
        erase("--payment", str(payment.correlation_id), "--payment", str(standing.correlation_id))

    assert Payment.objects.get(pk=payment.pk).description == SECRET


def test_payments_of_another_tenant_cannot_be_named(shop):
    theirs = make_payment(make_tenant("other"), status=FAILED, description="theirs")

    with pytest.raises(CommandError, match="has no payment"):
        erase("--payment", str(theirs.correlation_id))

    assert Payment.objects.get(pk=theirs.pk).description == "theirs"
