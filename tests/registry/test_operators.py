"""Decisions of operators: what is changed, recorded and published, and races that are lost."""

import pytest
from django.contrib import admin
from django.db.models import Q
from django.test import RequestFactory
from psycopg import AsyncConnection

from registry.models import AuditEntry, Tenant
from registry.operators.decide import Done, Lost, Moved, decide, each
from registry.operators.lists import ALL, choices_of

WHY = "the line is back"


def suspending(tenant: Tenant, *, and_then: type[Exception] | None = None):
    """A move that suspends the tenant if it is active."""

    async def move(_: AsyncConnection) -> list[Moved]:
        moved = await Tenant.async_objects.filter(pk=tenant.pk, status="active").aupdate(status="suspended")
        if and_then:
            raise and_then
        return [Moved(target=f"tenant {tenant}", tenant_id=tenant.pk)] if moved else []

    return move


async def status_of(tenant: Tenant) -> str:
    return (await Tenant.async_objects.aget(pk=tenant.pk)).status


async def entries() -> list[tuple[str, str]]:
    return [(one.action, one.reason) async for one in AuditEntry.async_objects.all()]


async def test_a_decision_is_recorded_with_its_rows_and_then_wakes_workers(tenant):
    seen = []

    async def wake() -> None:
        seen.append((await status_of(tenant), await entries()))

    moved = await decide(action="t.suspend", actor="olga", reason=WHY, move=suspending(tenant), wake=wake)

    assert [one.target for one in moved] == [f"tenant {tenant}"]
    assert seen == [("suspended", [("t.suspend", WHY)])]


async def test_a_lost_decision_records_nothing_and_wakes_no_worker(tenant):
    woken = []

    async def wake() -> None:
        woken.append(1)

    given = {"action": "t.suspend", "actor": "olga", "reason": WHY, "wake": wake}
    first = await decide(move=suspending(tenant), **given)
    second = await decide(move=suspending(tenant), **given)

    assert (bool(first), second) == (True, [])
    assert await entries() == [("t.suspend", WHY)]
    assert woken == [1]


async def test_a_decision_lost_halfway_is_rolled_back(tenant):
    moved = await decide(action="t.suspend", actor="olga", reason=WHY, move=suspending(tenant, and_then=Lost))

    assert moved == []
    assert (await status_of(tenant), await entries()) == ("active", [])


async def test_a_decision_that_cannot_be_recorded_is_not_made(tenant, monkeypatch):
    async def refuses(**_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("registry.tenants.audit.record", refuses)

    with pytest.raises(RuntimeError):
        await decide(action="t.suspend", actor="olga", reason=WHY, move=suspending(tenant))

    assert await status_of(tenant) == "active"


async def test_rows_that_lost_a_race_do_not_stop_the_others():
    async def decision(number: int) -> bool:
        return number != 2

    assert await each([1, 2, 3], decision) == Done(rows=2, lost=1)


# -- The filter of lists -------------------------------------------------------------------------------------------

Status = choices_of("status", {"active": ("active", Q(status="active")), "all": ALL}, default="active")


@pytest.mark.parametrize(("value", "shown"), [(None, ["acme"]), ("all", ["acme", "old"]), ("nonsense", [])])
def test_a_choice_filter_shows_its_default_and_nothing_for_a_value_it_does_not_have(db_of_two, value, shown):
    request = RequestFactory().get("/")
    chosen = Status(request, {"status": [value]} if value else {}, Tenant, admin.site._registry[Tenant])

    rows = chosen.queryset(request, Tenant.objects.filter(slug__in=["acme", "old"]))

    assert sorted(row.slug for row in rows) == shown


@pytest.fixture
def db_of_two() -> None:
    Tenant.objects.create(slug="acme", name="Acme", status="active")
    Tenant.objects.create(slug="old", name="Old", status="closed")
