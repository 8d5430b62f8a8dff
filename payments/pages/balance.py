"""Balance and ledger of a tenant: totals per currency, entries, and reports as files. The reports are jobs of payments/jobs."""

from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django_async_backend.db.transaction import async_atomic

from payments.books import entries
from payments.books.entries import EntryFilters, EntryPage, Totals
from payments.jobs import ledger, settlement
from payments.jobs.ledger import LedgerInput
from payments.jobs.settlement import SettlementInput
from payments.models import LedgerEntry
from payments.money import decimal_text
from payments.refunds.balance import connection_of_transaction
from queueing.jobs import files, store
from queueing.jobs.requests import of_service
from queueing.models import Job, JobFile, JobStatus
from registry.data import clock, database
from registry.edge.entered import as_entered, moment, parsed
from registry.edge.pages import PageRequest, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.tenants import audit
from registry.tenants.time_zones import zone_of

ROWS = 25  # entries of a page
REPORTS = 5  # files, and jobs without one, of the list
KINDS = {settlement.NAME: "Settlement report", ledger.NAME: "Ledger entries"}
LONGEST = timedelta(days=400)  # of a settlement report that this page asks for
FILTERS = ("from", "to", "account", "payment")


@page("GET", "HEAD", "POST")
async def balance(request: PageRequest) -> HttpResponse:
    """A tenant's totals and entries; for htmx only the reports, which are refreshed while one is being written."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    if request.method == "POST":
        return await _ask(request, visitor)
    if request.htmx:
        return render(request, "payments/_reports.html", await _reports(visitor))
    return await _show(request, visitor)


async def _show(request: HttpRequest, visitor: Visitor, *, status: int = 200, **more: Any) -> HttpResponse:
    yesterday = (clock.now() - timedelta(days=1)).date()
    found: list[Any] = await database.concurrently(
        lambda: _reports(visitor), lambda: _table(request, visitor), lambda: entries.totals(visitor.tenant.pk)
    )
    reports, table, totals = found
    context = {
        **reports,
        **table,
        "totals": [_total(one) for one in totals],
        "accounts": LedgerEntry.Account.values,
        "report": {
            "from": str(yesterday.replace(day=1)),
            "to": str(yesterday),
            "timezone": visitor.tenant.time_zone,
            "errors": {},
        },
        **more,
    }
    return render(request, "payments/balance.html", context, status=status)


def _total(found: Totals) -> dict[str, Any]:
    amounts = {name: getattr(found, name) for name in ("gross", "fees", "refunds", "disputes", "net")}
    return {
        "currency": found.currency,
        "payments": found.payments,
        **{name: decimal_text(amount, found.currency) for name, amount in amounts.items()},
    }


# -- Entries -------------------------------------------------------------------------------------------------


async def _table(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    chosen = {name: request.GET.get(name, "").strip() for name in FILTERS}
    errors: dict[str, str] = {}
    zone = zone_of(visitor.tenant)
    filters = _filters(chosen, errors, zone)
    before = _cursor(request.GET.get("before", ""))
    found = EntryPage([], None)
    if not errors:
        found = await entries.page_of(visitor.tenant.pk, filters, limit=ROWS, before=before)
    for name in ("from", "to"):  # in the format of the browser's field; a value it cannot show is in the error
        chosen[name] = "" if name in errors else as_entered(chosen[name], zone)
    wanted = {name: value for name, value in chosen.items() if value}
    here = {"tenant": visitor.tenant.slug, **wanted}
    return {
        "page": found,
        "zone": visitor.tenant.time_zone,
        "chosen": chosen,
        "errors": errors,
        "filtered": bool(wanted or errors),
        "page_is_first": before is None,
        "newest": f"{reverse('balance')}?{urlencode(here)}#entries",
        "older": f"{reverse('balance')}?{urlencode({**here, 'before': found.next})}#entries" if found.next else "",
    }


def _filters(chosen: dict[str, str], errors: dict[str, str], zone: ZoneInfo) -> EntryFilters:
    """The chosen filters, with times of `zone`. Those that cannot be read are put into `errors`."""

    def read(text: str) -> datetime:
        return moment(text, zone)

    return EntryFilters(
        from_=parsed(read, chosen["from"], "from", "is not a date and time", errors),
        to=parsed(read, chosen["to"], "to", "is not a date and time", errors),
        account=parsed(LedgerEntry.Account, chosen["account"], "account", "is not an account", errors),
        payment=parsed(UUID, chosen["payment"], "payment", "is not a whole payment id", errors),
    )


def _cursor(text: str) -> int | None:
    """The id before which the page begins. Raises Http404."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Http404
    return int(text)


# -- Reports -------------------------------------------------------------------------------------------------


async def _reports(visitor: Visitor) -> dict[str, Any]:
    """The latest reports: those that are being written, those that failed, and files that have not expired."""
    tenant_id = visitor.tenant.pk
    jobs = Job.async_objects.of(tenant_id).filter(kind__in=KINDS)
    unfinished = [job async for job in jobs.filter(closed=None).order_by("-id")[:REPORTS]]
    failed = [job async for job in jobs.filter(closed=JobStatus.FAILED).order_by("-id")[:REPORTS]]
    kept = JobFile.async_objects.filter(tenant_id=tenant_id, expires_at__gt=clock.now())
    found = {file.job_id: file async for file in kept.order_by("-job_id")[: REPORTS * 4]}
    written = [job async for job in jobs.filter(id__in=found, status=JobStatus.SUCCEEDED)]
    latest = sorted([*unfinished, *failed, *written], key=lambda job: job.created_at, reverse=True)[:REPORTS]
    return {
        "visitor": visitor,
        "reports": [_report(job, found.get(job.pk)) for job in latest],
        "busy": any(job.status not in (JobStatus.SUCCEEDED, JobStatus.FAILED) for job in latest),
    }


def _report(job: Job, file: JobFile | None) -> dict[str, Any]:
    return {
        "id": job.uuid,
        "title": KINDS[job.kind],
        "status": job.status,
        "error": job.error,
        "created_at": job.created_at,
        "file": files.shown(job, file) if file and job.status == JobStatus.SUCCEEDED else None,
    }


async def _ask(request: HttpRequest, visitor: Visitor) -> HttpResponse:
    """Submit a report. Raises Http404 for those who may not."""
    if not visitor.may_act:
        raise Http404
    match request.POST.get("do"):
        case "settlement":
            entered = {name: request.POST.get(name, "").strip() for name in ("from", "to", "timezone")}
            errors: dict[str, str] = {}
            wanted = _settlement(entered, errors)
            if wanted is None:
                return await _show(request, visitor, status=422, report={**entered, "errors": errors})
            await _submit(visitor, settlement.NAME, wanted)
        case "ledger":
            errors = {}
            filters = _filters(
                {**{n: request.POST.get(n, "") for n in FILTERS}, "payment": ""}, errors, zone_of(visitor.tenant)
            )
            if errors:
                raise Http404  # the form repeats filters that the page could read
            account: Any = filters.account and str(filters.account)
            await _submit(visitor, ledger.NAME, LedgerInput(from_=filters.from_, to=filters.to, account=account))
        case _:
            raise Http404
    return redirect(f"{reverse('balance')}?{urlencode({'tenant': visitor.tenant.slug})}#reports")


def _settlement(entered: dict[str, str], errors: dict[str, str]) -> SettlementInput | None:
    """The report's input; None with the faults in `errors`."""
    first = parsed(date.fromisoformat, entered["from"], "from", "is not a date", errors)
    last = parsed(date.fromisoformat, entered["to"], "to", "is not a date", errors)
    zone = entered["timezone"] or "UTC"
    if zone not in available_timezones():
        errors["timezone"] = f"“{zone[:40]}” is not a time zone, such as America/Sao_Paulo."
    if first and last and first > last:
        errors["to"] = "The last day is before the first."
    elif first and last and last - first > LONGEST:
        errors["to"] = f"A report has at most {LONGEST.days} days."
    return None if errors else SettlementInput(from_=first, to=last, timezone=zone)


async def _submit(visitor: Visitor, kind: str, wanted: msgspec.Struct) -> None:
    """The job and its audit entry in one transaction."""
    job = of_service(kind, wanted, tenant_id=visitor.tenant.pk)
    async with async_atomic():
        new = await store.insert(connection_of_transaction(), [job])
        await audit.record(
            actor=visitor.actor,
            action="job.submit",
            target=f"{kind} {job.id}",
            tenant_id=visitor.tenant.pk,
            detail=msgspec.to_builtins(wanted),
        )
    store.announce(new)
