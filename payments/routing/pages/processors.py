"""A merchant's pages of processors: list, settings and keys, test call, on and off, and the simulation of routing rules."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from limits import RateLimitItem, RateLimitItemPerMinute

from payments.models import Processor
from payments.routing import accounts, operate, probe
from payments.routing.pages.forms import FORMS, WORDS, ProcessorKeys, ProcessorSettings
from queueing.templatetags.queues import address
from registry.data import clock, database, rates
from registry.data.breaker import LONGEST_PAUSE
from registry.edge.pages import PageRequest, address_of, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Problem
from registry.http import ssrf
from registry.models import Tenant
from registry.operators.confirm import asked
from registry.tenants.encryption import Sealed

SQL = database.statements(Path(__file__).parents[1] / "sql" / "console.sql")
PROBE_WITHIN = timedelta(seconds=LONGEST_PAUSE * 1.2)  # the longest pause of an open breaker, with its jitter
TESTS: RateLimitItem = RateLimitItemPerMinute(10)  # calls of a tenant's processors by hand


@dataclass(frozen=True, slots=True)
class ProcessorCard:
    """A processor as the pages show it."""

    processor: Processor
    breaker: str
    breaker_since: datetime | None
    failing: bool
    min_response_ms: int
    trend_ms: float
    polled_at: datetime | None
    share: float  # of the bookings of the last day

    @property
    def kind(self) -> str:
        return WORDS.get(self.processor.kind, self.processor.kind)

    @property
    def only_by_name(self) -> bool:
        options = self.processor.options
        return isinstance(options, dict) and options.get("onlyByName") is True

    @property
    def state(self) -> tuple[str, str, str]:
        """Shape, colour and word."""
        if not self.processor.enabled:
            return "–", "grey", "switched off"
        if self.breaker == "open":
            return "✕", "red", "not working"
        if self.breaker == "half_open":
            return "◑", "amber", "being tried again"
        if self.failing:
            return "◑", "amber", "says it is failing"
        if self.only_by_name:
            return "○", "blue", "by name only"
        return "●", "green", "working"

    @property
    def sentence(self) -> str:
        """What it means for payments."""
        if not self.processor.enabled:
            return "No new payments are sent to it. Uncertain ones are still looked up there."
        if self.breaker != "closed":
            return (
                "Too many payments failed there, so payments go to other processors or wait. "
                f"A single payment probes it, at least every {LONGEST_PAUSE:g} s while payments come in; the first success ends this. "
                f"Next probe: {self.next_probe}."
            )
        if self.failing:
            return "It reports that it is failing. Payments go to other processors or wait until it reports otherwise."
        if self.only_by_name:
            return "Only payments that ask for it by name are sent to it."
        return ""

    @property
    def next_probe(self) -> str:
        """When an open breaker lets a payment through. Each worker has its own time: this is the latest."""
        if self.breaker == "half_open":
            return "under way"
        due = self.breaker_since + PROBE_WITHIN if self.breaker_since else clock.now()
        seconds = (due - clock.now()).total_seconds()
        return f"within {math.ceil(seconds)} s" if seconds > 0 else "the next payment"


# -- The list ----------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def processors(request: PageRequest) -> HttpResponse:
    """A tenant's processors in the order of routing; an owner adds one."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    kind = request.POST.get("kind", "") if request.method == "POST" else request.GET.get("add", "")
    if request.method != "POST":
        return await _list(request, visitor, _form(visitor, kind)() if kind else None)
    form = _form(visitor, kind)(request.POST)
    if form.is_valid() and await _add(visitor, form):
        return redirect(address("processor", form.cleaned_data["name"], tenant=visitor.tenant.slug))
    return await _list(request, visitor, form, status=422)


def _form(visitor: Visitor, kind: str) -> type[ProcessorSettings]:
    """The form of a kind that this visitor may add. Raises Http404."""
    if not visitor.may_own or kind not in _kinds(visitor.tenant):
        raise Http404
    return FORMS[kind]


def _kinds(tenant: Tenant) -> list[str]:
    return [kind for kind in FORMS if kind != "sandbox" or tenant.mode == Tenant.Mode.SANDBOX]


async def _list(
    request: HttpRequest, visitor: Visitor, form: ProcessorSettings | None, *, status: int = 200
) -> HttpResponse:
    found = await cards(visitor.tenant.pk)
    context = {
        "visitor": visitor,
        "cards": found,
        "usable": any(card.processor.enabled and not card.only_by_name for card in found),
        "form": form,
        "kinds": [(kind, WORDS[kind]) for kind in _kinds(visitor.tenant)],
    }
    return render(request, "payments/processors/processors.html", context, status=status)


async def cards(tenant_id: int) -> list[ProcessorCard]:
    """A tenant's processors in the order of routing: by fee."""
    rows = await database.fetch(SQL["processors"], {"tenant": tenant_id})
    mine = Processor.async_objects.filter(tenant_id=tenant_id)
    by_id = {processor.pk: processor async for processor in mine}
    return [ProcessorCard(by_id[key], *state) for key, *state in rows if key in by_id]


async def _add(visitor: Visitor, form: ProcessorSettings) -> bool:
    """Add the processor of a valid form; False with the errors in the form."""
    if fault := await _fault_of_address(visitor.tenant, form):
        form.add_error("url", fault)
        return False
    try:
        await accounts.add(
            tenant=visitor.tenant,
            name=form.cleaned_data["name"],
            kind=form.kind,
            actor=visitor.actor,
            url=form.cleaned_data.get("url", ""),
            fee=form.fee_share,
            options={**{k: v for k, v in form.options.items() if v is not None}, **form.given_secrets},
            public_only=True,
        )
    except accounts.Refused as error:
        form.add_error(None, error.detail)
        return False
    return True


async def _fault_of_address(tenant: Tenant, form: ProcessorSettings) -> str:
    """Why we may not call the address that was entered; "" if we may."""
    url = form.cleaned_data.get("url", "")
    if not url or (form.processor is not None and url == form.processor.url):
        return ""
    await database.release()  # the look-up of its name may be slow
    outside = ssrf.Outside()
    try:
        return await ssrf.fault_of(url, outside, tls_only=tenant.mode == Tenant.Mode.LIVE)
    finally:
        outside.close()


# -- One processor -------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def processor(request: PageRequest, name: str) -> HttpResponse:
    """One processor: its state, its settings, and the actions on it."""
    visitor = await known(request)
    card = next((card for card in await cards(visitor.tenant.pk) if card.processor.name == name), None)
    if card is None:
        raise Http404
    do = asked(request).get("do")
    if do in ("enable", "disable"):
        return await operate.confirm_switch(request, visitor, card.processor, enabled=do == "enable")
    if request.method != "POST":
        return await _show(request, visitor, card)
    if do == "test" and visitor.may_act:
        return await _test(request, visitor, card.processor)
    settings = FORMS.get(card.processor.kind)
    if settings is None or not visitor.may_own:
        raise Http404
    if do == "change":
        form = settings(request.POST, processor=card.processor)
        if form.is_valid() and await _change(request, visitor, card.processor, form):
            return redirect(_here(visitor, card.processor))
        return await _show(request, visitor, card, status=422, form=form)
    if do == "keys":
        keys = ProcessorKeys(settings, request.POST)
        if keys.is_valid() and await _change_keys(request, visitor, card.processor, keys):
            return redirect(_here(visitor, card.processor))
        return await _show(request, visitor, card, status=422, keys=keys)
    raise Http404


def _here(visitor: Visitor, processor: Processor) -> str:
    return address("processor", processor.name, tenant=visitor.tenant.slug)


async def _show(
    request: HttpRequest, visitor: Visitor, card: ProcessorCard, *, status: int = 200, **bound: forms.Form
) -> HttpResponse:
    """The page; `bound` has the form that was refused."""
    mine = card.processor
    settings = FORMS.get(mine.kind) if visitor.may_own else None
    context = {
        "visitor": visitor,
        "card": card,
        "form": settings(processor=mine) if settings else None,
        "keys": ProcessorKeys(settings) if settings and settings.secrets else None,
        "stored": _stored(mine),
        "webhook": f"{address_of(request)}/webhooks/stripe/{visitor.tenant.slug}.{mine.name}"
        if mine.kind == "stripe"
        else "",
        **bound,
    }
    return render(request, "payments/processors/processor.html", context, status=status)


def _stored(processor: Processor) -> str:
    """Which keys are stored, in words; never their values."""
    try:
        secrets = accounts.opened(processor)
    except Sealed as error:
        return error.detail
    count = len(secrets.get("webhookSecrets", []))
    said = ["secret key"] if secrets.get("secretKey") else []
    said += [f"{count} webhook secret{'s' if count > 1 else ''}"] if count else []
    return ", ".join(said) or "none"


def _simulated(processor: Processor) -> str:
    """The trouble that a test processor is set to simulate: a test call does not meet it."""
    if processor.kind != "sandbox":
        return ""
    return "fail" if processor.options.get("failing") else "hang" if processor.options.get("hang") else ""


async def _test(request: HttpRequest, visitor: Visitor, processor: Processor) -> HttpResponse:
    """Call the processor once, and say on its page how it went."""
    counted = await rates.count(TESTS, "processor test", str(visitor.tenant.pk))
    if counted is not None and not counted[0]:
        messages.warning(request, f"At most {TESTS}. Nothing was sent.")
        return redirect(_here(visitor, processor))
    sealed = bytes(processor.secrets) if processor.secrets else None
    fault = await probe.fault_of(accounts.account_of(processor, visitor.tenant, sealed))
    if fault:
        messages.error(request, f"{processor.name} {fault}.")
    elif mood := _simulated(processor):
        messages.warning(request, f"{processor.name} answers, but is set to {mood} on the home page.")
    else:
        messages.success(
            request, f"{processor.name} answers{' and accepts its key' if sealed else ''}. Nothing was booked."
        )
    return redirect(_here(visitor, processor))


async def _change(request: HttpRequest, visitor: Visitor, processor: Processor, form: ProcessorSettings) -> bool:
    """Save the settings of a valid form; False with the errors in the form."""
    if fault := await _fault_of_address(visitor.tenant, form):
        form.add_error("url", fault)
        return False
    try:
        changed = await accounts.change(
            tenant=visitor.tenant,
            name=processor.name,
            actor=visitor.actor,
            fee=form.fee_share,
            url=form.cleaned_data.get("url"),
            options=form.options,
            public_only=True,
        )
    except accounts.Refused as error:
        form.add_error(None, error.detail)
        return False
    messages.success(request, f"Saved: {', '.join(changed)}." if changed else "Nothing was changed.")
    return True


async def _change_keys(request: HttpRequest, visitor: Visitor, processor: Processor, keys: ProcessorKeys) -> bool:
    """Save the keys of a valid form; False with the errors in the form."""
    try:
        await accounts.change_secrets(
            tenant=visitor.tenant, name=processor.name, options=dict(keys.given_secrets), actor=visitor.actor
        )
    except Problem as problem:
        keys.add_error(None, problem.detail)
        return False
    messages.success(request, "The new keys are in use.")
    return True
