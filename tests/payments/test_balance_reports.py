"""Reports of the balance page: the job and its audit entry are one transaction."""

import pytest

from payments.pages import balance
from queueing.models import Job
from registry.models import AuditEntry
from tests.factories import in_thread
from tests.payments.test_reversal_lists import person
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture

REPORT = {"do": "settlement", "from": "2026-01-01", "to": "2026-01-31", "timezone": "UTC"}


async def test_a_report_is_submitted_with_its_audit_entry(visiting: As, tenant):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        status, _ = await visit.post(f"/balance?tenant={tenant.slug}", **REPORT)

    [job] = await in_thread(lambda: list(Job.objects.filter(tenant=tenant)))
    [entry] = await in_thread(lambda: list(AuditEntry.objects.filter(action="job.submit")))
    assert (status, job.kind, job.status) == (302, "reports.settlement", "queued")
    assert (entry.tenant_id, entry.target) == (tenant.pk, f"reports.settlement {job.uuid}")


async def test_without_its_audit_entry_no_report_is_submitted(visiting: As, tenant, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    async def refuses(**_: object) -> None:
        raise RuntimeError("no entry, no action")

    monkeypatch.setattr(balance.audit, "record", refuses)
    async with visiting(await person(tenant)) as visit:
        status, _ = await visit.post(f"/balance?tenant={tenant.slug}", **REPORT)

    assert status == 500
    assert not await in_thread(Job.objects.filter(tenant=tenant).exists)
