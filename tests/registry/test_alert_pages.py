"""Alerts in the admin and on the operators' home: one line for each thing, silences as guarded actions, rights."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from registry.models import Alert, AlertMessage, AlertSilence, AlertWatch, AuditEntry
from registry.operators.alerts import home
from registry.operators.alerts.home import OpenAlert
from registry.operators.alerts.retention import trim
from registry.operators.alerts.rules import rules
from registry.operators.attention import Item, Severity
from tests.attending import named
from tests.factories import make_person, make_tenant
from tests.registry.alerting import HOST


def make_alert(**different: Any) -> Alert:
    """A firing alert of the rule `disk` on a host."""
    now = datetime.now(UTC)
    given = {
        "id": uuid4(), "rule": "disk", "host": HOST, "status": "firing", "severity": Severity.WARNING, "sentence": "Little room.",
        "since": now, "fired_at": now, "value": 0.125, "read_at": now,
    }  # fmt: skip
    return Alert.objects.create(**{**given, **different})


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(make_person("olga"))
    return client


def shown(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def opened(**different: Any) -> OpenAlert:
    return OpenAlert(
        Alert(rule="disk", severity=Severity.WARNING, status="firing", since=datetime.now(UTC), **different),
        None,
        False,
    )


# -- The operators' home ------------------------------------------------------------------------------------------------


def test_the_home_shows_an_alert_with_its_host_its_value_and_the_runbook(operator: Client):
    alert = make_alert()

    page = shown(operator, "/admin/")

    assert "Little room. On here. Value: 0.125." in page
    assert f'href="/admin/registry/alert/{alert.pk}/change/">Alert of here: firing</a>' in page
    assert 'href="/admin/runbook/#disk"' in page


def test_a_silenced_alert_is_still_shown_and_marked(operator: Client):
    make_alert()
    until = datetime.now(UTC) + timedelta(hours=1)
    AlertSilence.objects.create(rule="disk", starts_at=datetime.now(UTC), ends_at=until, actor="olga", why="known")

    assert f"Alert of here: firing, silenced until {until:%Y-%m-%d %H:%M:%S} UTC" in shown(operator, "/admin/")
    assert f"until {until:%Y-%m-%d %H:%M:%S} UTC by olga: known" in shown(operator, "/admin/registry/alert/")


@pytest.mark.parametrize("severity", [Severity.NOTICE, Severity.WELL])
def test_an_item_and_an_alert_of_the_same_name_are_one_line_as_urgent_as_the_more_urgent(severity: Severity):
    [(item, alerts)] = home.combined([Item(name="disk", severity=severity, sentence="Some room.")], [opened()])

    assert (item.severity, len(alerts)) == (Severity.WARNING, 1)


def test_an_alert_says_more_than_an_item_that_could_not_be_read():
    unknown = Item(name="disk", severity=Severity.WARNING, sentence="disk could not be read", known=False)

    [(item, _)] = home.combined([unknown], [opened(sentence="Little room.")])

    assert (item.known, item.sentence) == (True, "Little room.")


def test_other_items_and_alerts_of_other_hosts_are_lines_of_their_own():
    items = [
        Item(name="redis", severity=Severity.CRITICAL, sentence="Away."),
        Item(name="queues", severity=Severity.WELL, sentence="Well."),
    ]

    lines = home.combined(items, [opened(host="a"), opened(host="b")])

    assert [item.name for item, _ in lines] == ["redis", "disk", "disk", "queues"]


def test_a_person_of_a_tenant_sees_no_alert_and_none_of_their_pages():
    make_alert()
    client = Client()
    client.force_login(make_person(tenant=make_tenant("acme"), role="owner"))

    assert "Little room." not in shown(client, "/admin/")
    for name in ("alert", "alertsilence", "alertmessage"):
        assert client.get(f"/admin/registry/{name}/").status_code == 403


# -- Silences -------------------------------------------------------------------------------------------------------------


def run_action(client: Client, model: str, name: str, pk: Any, reason: str = "") -> str:
    """Choose the action for one row, and confirm it if there is a reason."""
    data: dict[str, Any] = {"action": name, "_selected_action": [str(pk)]}
    if reason:
        data |= {"reason": reason, "seen": 1}
    return client.post(f"/admin/registry/{model}/", data, follow=True).content.decode()


def test_an_alert_is_silenced_with_a_reason_and_an_entry_of_the_audit_log(operator: Client):
    alert = make_alert()

    asked = run_action(operator, "alert", "alert_silence_hour", alert.pk)
    before = AlertSilence.objects.count()
    run_action(operator, "alert", "alert_silence_hour", alert.pk, reason="we know")

    [silence], [entry] = AlertSilence.objects.all(), AuditEntry.objects.filter(action="alert.silence_hour")
    assert ("still shown" in asked, before) == (True, 0)
    assert (silence.rule, silence.host, silence.actor, silence.why) == ("disk", HOST, "olga", "we know")
    assert timedelta(minutes=59) < silence.ends_at - datetime.now(UTC) <= timedelta(hours=1)
    assert (entry.actor, entry.reason, entry.target) == ("olga", "we know", "alert disk on here")


def test_a_silence_is_ended_early(operator: Client):
    now = datetime.now(UTC)
    silence = AlertSilence.objects.create(rule="disk", ends_at=now + timedelta(days=1), actor="olga", why="known")

    run_action(operator, "alertsilence", "alertsilence_end", silence.pk, reason="done")

    silence.refresh_from_db()
    assert silence.ends_at <= datetime.now(UTC)
    assert AuditEntry.objects.filter(action="alertsilence.end", reason="done").count() == 1


def add(client: Client, ends_at: datetime, **different: str) -> str:
    data = {
        "rule": rules()[0].name,
        "host": "",
        "reason": "maintenance",
        "ends_at_0": f"{ends_at:%Y-%m-%d}",
        "ends_at_1": f"{ends_at:%H:%M:%S}",
    }
    return client.post("/admin/registry/alertsilence/add/", {**data, **different}, follow=True).content.decode()


def test_a_silence_is_added_before_something_fires(operator: Client):
    add(operator, datetime.now(UTC) + timedelta(hours=3))

    [silence] = AlertSilence.objects.all()
    assert (silence.rule, silence.host, silence.actor, silence.why) == (rules()[0].name, "", "olga", "maintenance")
    assert AuditEntry.objects.filter(action="alertsilence.add", reason="maintenance").count() == 1


@pytest.mark.parametrize("later", [timedelta(hours=-1), timedelta(days=31)], ids=str)
def test_a_silence_ends_in_the_future_and_within_a_month(operator: Client, later: timedelta):
    page = add(operator, datetime.now(UTC) + later)

    assert "A time in the future, at most 30 days from now (UTC)." in page
    assert AlertSilence.objects.count() == 0


@pytest.mark.parametrize("different", [{"rule": "no.rule"}, {"reason": ""}], ids=str)
def test_a_silence_names_a_rule_and_a_reason(operator: Client, different: dict[str, str]):
    page = add(operator, datetime.now(UTC) + timedelta(hours=1), **different)

    assert 'class="errorlist"' in page
    assert AlertSilence.objects.count() == 0


# -- The lists ------------------------------------------------------------------------------------------------------------


def test_the_pages_of_an_alert_and_of_its_message_say_everything(operator: Client):
    alert = make_alert(rule=rules()[0].name, samples=[{"labels": {"queue": "payments"}, "value": 3}], value=3)
    now = datetime.now(UTC)
    message = AlertMessage.objects.create(
        message_id="msg_1",
        channel="webhook",
        subject="firing",
        body="{}",
        created_at=now,
        due_at=now,
        error="it answered 500",
    )

    page = shown(operator, f"/admin/registry/alert/{alert.pk}/change/")
    listed = shown(operator, "/admin/registry/alertmessage/?state=waits")

    assert "3 queue=payments" in page
    assert str(rules()[0].condition).partition(" ")[0].partition("(")[0] in page
    assert re.search(r"it answered 500", listed)
    assert "it answered 500" in shown(operator, f"/admin/registry/alertmessage/{message.pk}/change/")


def test_nothing_of_an_alert_can_be_changed_or_deleted(operator: Client):
    alert = make_alert()

    assert operator.post(f"/admin/registry/alert/{alert.pk}/change/", {"rule": "other"}).status_code == 403
    assert operator.get(f"/admin/registry/alert/{alert.pk}/delete/").status_code == 403


# -- Who evaluates, and what is kept ----------------------------------------------------------------------------------------


def watch(host: str = HOST, **different: Any) -> AlertWatch:
    return AlertWatch.objects.create(**{"host": host, "evaluator": "here 1", "at": datetime.now(UTC), **different})


async def test_rules_that_nobody_evaluates_need_attention():
    now = datetime.now(UTC)
    nobody = await named("alerts.evaluation")
    await AlertWatch.async_objects.acreate(host="", evaluator="here 1", at=now)
    well = await named("alerts.evaluation")
    await AlertWatch.async_objects.acreate(host=HOST, evaluator="here 1", at=now - timedelta(minutes=3))
    [late] = await named("alerts.evaluation")
    await AlertWatch.async_objects.aupdate(at=now, unknown={"disk": now.isoformat()})
    [unknown] = await named("alerts.evaluation")

    assert [item.severity for item in (*nobody, *well)] == [Severity.WELL, Severity.WELL]
    assert (
        late.sentence
        == "The alert rules of the host here have not been evaluated for 3 min: what is wrong there is told to nobody."
    )
    assert unknown.sentence == "1 alert rule cannot be evaluated: the metrics of disk cannot be read."
    assert await named("alerts.evaluation", [1]) == await named("alerts.messages", [1]) == []


async def test_old_alerts_silences_and_messages_are_deleted_and_those_that_are_open_stay():
    old = datetime.now(UTC) - timedelta(days=91)
    for status, resolved_at in (("resolved", old), ("firing", None)):
        await Alert.async_objects.acreate(
            id=uuid4(), rule="disk", status=status, severity=1, since=old, read_at=old, resolved_at=resolved_at
        )
    await AlertSilence.async_objects.acreate(rule="disk", ends_at=old, actor="olga", why="known")
    for number, due_at in enumerate((None, old)):
        await AlertMessage.async_objects.acreate(
            message_id=f"msg_{number}", channel="email", body="", created_at=old, due_at=due_at
        )

    await trim()

    assert [one.status async for one in Alert.async_objects.all()] == ["firing"]
    assert await AlertSilence.async_objects.acount() == 0
    assert [one.message_id async for one in AlertMessage.async_objects.all()] == ["msg_1"]


async def test_the_alerts_of_a_host_that_is_gone_are_resolved_and_that_is_told(settings):
    settings.ALERT_WEBHOOK_URL = "http://127.0.0.1:1/"
    now, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(days=2)
    for host, at in ((HOST, long_ago), ("there", now), ("", long_ago)):
        await AlertWatch.async_objects.acreate(host=host, evaluator="x", at=at)
        await Alert.async_objects.acreate(
            id=uuid4(), rule="disk", host=host, status="firing", severity=1, since=at, read_at=at, told_at=at
        )

    await trim()

    assert {one.host: one.status async for one in Alert.async_objects.all()} == {
        HOST: "resolved",
        "there": "firing",
        "": "firing",
    }
    assert [one.host async for one in AlertWatch.async_objects.order_by("host")] == ["", "there"]
    [message] = [one async for one in AlertMessage.async_objects.all()]
    assert '"status":"resolved"' in message.body
