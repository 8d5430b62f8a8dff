"""The kinds of jobs of payments, each run on real payments."""

import asyncio
import csv
import gzip
import io
import json
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now

from payments.books import purge
from payments.models import DeadLetter, Payment
from payments.states import Status
from queueing.jobs import store
from queueing.jobs.work import JobWork
from queueing.models import Job, Worker
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_dead_letter, make_payment, make_processor
from tests.payments.refunding import booked, draining, paying_back, refunds_of, until_all
from tests.queueing.test_jobs import get, post, run, submit
from tests.settling import accept


@pytest.fixture
async def sandbox(tenant: Tenant) -> Any:
    return await in_thread(make_processor, tenant, "default", fee="0.05")


async def finished(api: Api, kind: str, input: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
    """The job and its result once it has succeeded."""
    accepted = await submit(api, kind=kind, input=input or {})
    await run()
    job = await get(api, f"/jobs/{accepted['id']}")
    assert job["status"] == "succeeded", job
    return job, await get(api, f"/jobs/{job['id']}/result")


async def content_of(api: Api, job: dict[str, Any]) -> bytes:
    url = job["file"]["url"]
    async with api.get(url[url.index("/jobs/") :]) as response:
        assert response.status == 200
        return await response.read()


async def test_an_export_has_every_payment_with_fee_refunds_and_metadata(
    api: Api, tenant: Tenant, sandbox: Any
) -> None:
    await booked(tenant, 3)
    await api.pay("5.00", metadata={"order": "=7"}, description="=1+1")

    job, result = await finished(api, "payments.export", {"format": "csv"})
    rows = list(csv.DictReader(io.StringIO((await content_of(api, job)).decode())))

    assert result == {"payments": 4, "size": job["file"]["size"]}
    assert job["progress"] == {"done": 4, "total": 4, "message": "payments written"}
    assert [row["status"] for row in rows] == ["queued", "succeeded", "succeeded", "succeeded"]
    assert (rows[0]["description"], rows[0]["metadata"], rows[1]["fee"]) == ("'=1+1", '{"order":"=7"}', "0.50")


async def test_an_export_may_be_compressed_ndjson_and_filtered(api: Api, tenant: Tenant, sandbox: Any) -> None:
    await booked(tenant, 2)
    await api.pay("5.00")

    job, _ = await finished(api, "payments.export", {"format": "ndjson", "gzip": True, "status": "succeeded"})
    lines = gzip.decompress(await content_of(api, job)).decode().splitlines()

    assert job["file"]["name"] == "payments.ndjson.gz"
    assert {json.loads(line)["status"] for line in lines} == {"succeeded"}
    assert len(lines) == 2


async def test_an_export_of_what_the_consoles_list_shows(api: Api, tenant: Tenant, sandbox: Any) -> None:
    await booked(tenant, 2)
    wanted = await api.pay("5.00", description="Two coffees", metadata={"order": "A-7"})
    await api.pay("6.00", description="Two coffees")

    matching = {"search": "coffees", "state": "queued", "amountTo": "5.5", "from": wanted["createdAt"]}
    job, result = await finished(api, "payments.export", {"format": "ndjson", "matching": matching})
    (line,) = (await content_of(api, job)).splitlines()
    _, everything = await finished(api, "payments.export", {"matching": {}})

    assert result["payments"] == 1
    assert json.loads(line)["correlationId"] == wanted["correlationId"]
    assert set(json.loads(line)) == {*await get(api, f"/payments/{wanted['correlationId']}/status"), *MORE}
    assert everything["payments"] == 4


MORE = ("createdAt", "description", "metadata", "fee", "refunded")  # of an exported payment, beside its status


@pytest.mark.parametrize(
    ("input", "said"),
    [
        ({"matching": {"state": "lost"}}, "state wants one of"),
        ({"matching": {"amountFrom": "-1"}}, "an amount is out of range"),
        ({"matching": {"currency": "XXY"}}, "currency is not an ISO 4217 code"),
        ({"matching": {"search": "a"}, "status": "failed"}, "matching has all filters, and stands alone"),
        ({"matching": {"colour": "blue"}}, "unknown field"),
    ],
)
async def test_an_export_with_filters_that_do_not_exist_is_refused(
    api: Api, tenant: Tenant, input: dict[str, Any], said: str
) -> None:
    async with api.post("/jobs", json={"kind": "payments.export", "input": input}) as response:
        answer = await response.json()

    assert response.status == 422
    assert said in str(answer["errors"])


async def test_a_purge_removes_what_was_there_and_no_payment_after_it(api: Api, tenant: Tenant, sandbox: Any) -> None:
    await accept(tenant, 20)
    before = (await get(api, f"/payments/{(await api.pay())['correlationId']}"))["createdAt"]
    later = await api.pay()

    _, result = await finished(api, "payments.purge", {"before": before.replace("Z", "999Z")})

    assert result["payments"] == 21
    assert [str(row.correlation_id) async for row in Payment.async_objects.of(tenant.pk)] == [later["correlationId"]]


async def test_a_live_tenant_is_not_purged(api: Api, tenant: Tenant) -> None:
    await Tenant.async_objects.filter(pk=tenant.pk).aupdate(mode="live")
    job = await submit(api, kind="payments.purge", input={})
    await run()

    assert (await get(api, f"/jobs/{job['id']}"))["error"]["code"] == "live_tenant"


async def test_a_large_sandbox_is_emptied_by_a_job(
    api: Api, tenant: Tenant, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "AT_ONCE", 5)
    await accept(tenant, 20)
    async with draining(JobWork()), api.post("/purge-payments") as response:
        said = await response.json()

    assert response.status == 200
    assert (await get(api, f"/jobs/{said['job']['id']}"))["status"] == "succeeded"
    assert await purge.count(tenant.pk) == 0


async def test_a_purge_whose_job_does_not_succeed_says_so(
    api: Api, tenant: Tenant, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "AT_ONCE", 5)
    await accept(tenant, 20)
    await Worker.async_objects.acreate(queue="jobs", hostname="h", pid=1)  # one that never claims anything
    await database.release()

    async def canceled() -> bool:
        found = (await get(api, "/jobs?kind=payments.purge"))["items"]
        return bool(found) and bool(await post(api, f"/jobs/{found[0]['id']}/cancel"))

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(_purge(api))
        await eventually(canceled)

    assert asked.result()[0] == 503
    assert await purge.count(tenant.pk) == 20


@pytest.fixture
async def idle(sandbox: Any, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """More payments than a request removes itself, and a worker that never claims anything."""
    monkeypatch.setattr(purge, "AT_ONCE", 5)
    monkeypatch.setattr(purge, "WITHIN", 0.1)
    await accept(tenant, 20)
    await Worker.async_objects.acreate(queue="jobs", hostname="h", pid=1)
    await database.release()


async def test_purges_share_one_job_and_those_without_a_key_are_not_sent_to_what_they_cannot_read(
    api: Api, server: str, tenant: Tenant, idle: None, settings: Any
) -> None:
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    async with database.own_connection():
        await Tenant.async_objects.filter(pk=tenant.pk).aupdate(open=True)
    form = {"Cookie": f"csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32}
    async with Api(server) as visitor:
        visitor.session.headers.update(form)
        answers = [await _purge(caller) for caller in (api, visitor, visitor)]

    assert [(status, "job" in said) for status, said in answers] == [(202, True), (202, False), (202, False)]
    assert (await get(api, "/jobs?kind=payments.purge"))["total"] == 1


async def test_a_purge_that_began_before_leaves_what_was_accepted_since(
    api: Api, tenant: Tenant, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = store.submit

    async def and_run(job: Any) -> Any:
        receipt = await submitted(job)
        if receipt.at_work:
            await run()
        return receipt

    monkeypatch.setattr(store, "submit", and_run)
    first = await _purge(api)
    await api.pay()
    second, said = await _purge(api)

    assert (first[0], second, said["left"]) == (202, 202, 1)
    assert await purge.count(tenant.pk) == 1


async def _purge(api: Api) -> tuple[int, dict[str, Any]]:
    async with api.post("/purge-payments") as response:
        return response.status, await response.json()


async def test_many_refunds_are_accepted_once_each_and_refusals_are_named(
    api: Api, tenant: Tenant, sandbox: Any
) -> None:
    first, second = await booked(tenant, 2)
    [queued] = await accept(tenant, 1)
    items = [
        {"correlationId": str(first), "amount": "4.00"},
        {"correlationId": str(second)},
        {"correlationId": str(queued)},
    ]

    _, result = await finished(api, "payments.refund_many", {"payments": items, "reason": "recall"})

    assert (result["accepted"], result["refused"]) == (2, 1)
    assert result["refusals"][0]["correlationId"] == str(queued)
    assert [refund.amount for one in (first, second) for refund in await refunds_of(one)] == [400, 1000]


async def test_refunds_of_a_job_that_runs_twice_are_made_once(api: Api, tenant: Tenant, sandbox: Any) -> None:
    [payment] = await booked(tenant, 1)
    items = {"payments": [{"correlationId": str(payment), "amount": "4.00"}]}
    job, first = await finished(api, "payments.refund_many", items)
    await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(status="queued", run_at=Now())
    await run()

    assert first["accepted"] == 1
    assert (await get(api, f"/jobs/{job['id']}/result"))["accepted"] == 1
    assert len(await refunds_of(payment)) == 1


async def test_dead_letters_are_replayed_by_a_job_of_an_administrator(
    server: str, tenant: Tenant, sandbox: Any, api: Api
) -> None:
    def seed() -> None:
        for _ in range(3):
            make_dead_letter(make_payment(tenant, status=Status.FAILED, processor=sandbox))

    await in_thread(seed)
    async with Api(server, await make_key(tenant, "admin")) as operator:
        _, result = await finished(operator, "payments.replay_dead_letters", {"reason": "the processor is well again"})

    assert result == {"replayed": 3, "bookedAsExternal": 0, "resolvedMeanwhile": 0}
    assert await DeadLetter.async_objects.filter(tenant_id=tenant.pk, resolution="replayed").acount() == 3
    await submit(api, kind="payments.replay_dead_letters", input={"reason": "x"}, status=403)


async def test_a_reconciliation_names_what_each_processor_counted(api: Api, tenant: Tenant, sandbox: Any) -> None:
    await booked(tenant, 2)

    _, result = await finished(api, "payments.reconcile", {"processor": "default"})

    assert [one["processor"] for one in result] == ["default"]
    assert result[0]["differences"] == 0


async def test_a_settlement_report_of_days_that_do_not_exist_fails_at_once(api: Api, sandbox: Any) -> None:
    job = await submit(api, kind="reports.settlement", input={"from": "9999-12-31", "to": "9999-12-31"})
    await run()

    failed = await get(api, f"/jobs/{job['id']}")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_days")


async def test_a_settlement_report_adds_up_by_day_processor_and_currency(
    api: Api, tenant: Tenant, sandbox: Any
) -> None:
    first, _ = await booked(tenant, 2)
    async with api.post(f"/payments/{first}/refunds", json={"amount": "4.00"}) as response:
        assert response.status == 202
    async with paying_back():
        await until_all(first, "returned")
    today = (await get(api, f"/payments/{first}"))["createdAt"][:10]

    job, result = await finished(api, "reports.settlement", {"from": today, "to": today})

    expected = {
        "date": today, "processor": "default", "currency": "BRL", "gross": "20.00", "fees": "1.00", "refunds": "4.00",
        "disputes": "0.00", "net": "15.00",
    }  # fmt: skip
    assert result["lines"] == [expected]
    assert (await content_of(api, job)).decode().splitlines()[1] == ",".join(expected.values())
