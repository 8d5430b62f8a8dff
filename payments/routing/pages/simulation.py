"""The page that simulates routing: edit the rules, see where the latest payments would have gone, put the rules in force."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from payments.routing import activate, dry_run
from payments.routing.rules_form import ActivationForm, RulesForm, examples, offer, table
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import Visitor
from registry.errors import Problem


@page("GET", "HEAD", "POST")
async def simulation(request: PageRequest) -> HttpResponse:
    """Route the latest payments again by edited rules. Nothing is sent; an owner may put the rules in force."""
    visitor = await known(request)
    if not visitor.may_act:
        raise Http404
    activating = ActivationForm(request.POST) if "activate" in request.POST else None
    if activating is not None:
        if not visitor.may_own:
            raise Http404
        if activating.is_valid() and await _activate(request, visitor, activating):
            return redirect(address("processors", tenant=visitor.tenant.slug))
    rules = await dry_run.rules_of(visitor.tenant.pk)
    form = RulesForm(rules, request.POST if "dry_run" in request.POST else None)
    found = await _result(visitor, form)
    context: dict[str, Any] = {
        "visitor": visitor,
        "form": form,
        "found": found,
        "sides": table(found, rules) if found else [],
        "examples": examples(found) if found else [],
        "activation": (activating or offer(found)) if visitor.may_own else None,
    }
    refused = bool(form.errors or (activating is not None and activating.errors))
    return render(request, "payments/processors/routing.html", context, status=422 if refused else 200)


async def _result(visitor: Visitor, form: RulesForm) -> dry_run.DryRun | None:
    if not form.is_bound or not form.is_valid():
        return None
    try:
        return await dry_run.run(tenant_id=visitor.tenant.pk, edits=form.edits(), last=form.cleaned_data["last"])
    except Problem as problem:
        form.add_error(None, problem.detail)
        return None


async def _activate(request: HttpRequest, visitor: Visitor, form: ActivationForm) -> bool:
    try:
        changed = await activate.activate(
            tenant_id=visitor.tenant.pk,
            edits=form.cleaned_data["edits"],
            rules=form.cleaned_data["rules"],
            actor=visitor.actor,
            reason=form.cleaned_data["reason"],
        )
    except Problem as problem:
        form.add_error(None, problem.detail)
        return False
    messages.success(request, f"In force now: {', '.join(changed)}." if changed else "No rule changes.")
    return True
