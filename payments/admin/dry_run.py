"""Operators' page for dry runs of routing: edit a tenant's rules, see where its payments would have gone, activate."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from payments.money import decimal_text
from payments.routing import activate, dry_run
from payments.routing.dry_run import WAITS, DryRun, Rule, Side
from registry.edge.typed_numbers import WholeNumberField
from registry.errors import Problem
from registry.models import Tenant
from registry.operators.scope import OWN, TenantScoped, scope_of


class RulesForm(forms.Form):
    """A form with a tenant's routing rules; only changed fields count as edits."""

    last = WholeNumberField(min_value=1, max_value=dry_run.MOST, initial=1000, label="Number of latest payments")

    def __init__(self, rules: Sequence[Rule], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rules = rules
        for rule in rules:
            self.fields[f"fee-{rule.id}"] = forms.DecimalField(
                initial=Decimal(rule.fee), min_value=0, max_digits=7, decimal_places=6, label=f"{rule.name}: fee"
            )
            self.fields[f"enabled-{rule.id}"] = forms.BooleanField(
                initial=rule.enabled, required=False, label=f"{rule.name}: enabled"
            )

    def rows(self) -> list[tuple[Rule, Any, Any]]:
        return [(rule, self[f"fee-{rule.id}"], self[f"enabled-{rule.id}"]) for rule in self.rules]

    def edits(self) -> dict[str, str]:
        edits = {}
        for rule in self.rules:
            fee, enabled = self.cleaned_data[f"fee-{rule.id}"], self.cleaned_data[f"enabled-{rule.id}"]
            if fee != Decimal(rule.fee):
                edits[f"{rule.name}.fee"] = f"{fee:f}"
            if enabled != rule.enabled:
                edits[f"{rule.name}.enabled"] = "true" if enabled else "false"
        return edits


class ActivationForm(forms.Form):
    """The rules of a dry run, and the reason to activate them."""

    edits = forms.JSONField(widget=forms.HiddenInput)
    rules = forms.CharField(widget=forms.HiddenInput)
    reason = forms.CharField(max_length=500, label="Why", help_text="Kept in the audit trail.")

    def clean_edits(self) -> dict[str, str]:
        edits = self.cleaned_data["edits"]
        if not isinstance(edits, dict) or not all(isinstance(value, str) for value in edits.values()):
            raise forms.ValidationError("These are not edits of rules.")
        return edits


class DryRunPage(TenantScoped):
    """Adds the page for dry runs to the list of processors."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.dry_run)
        return [path("rehearse/", view, name="payments_processor_dry_run"), *super().get_urls()]

    def dry_run(self, request: HttpRequest) -> HttpResponse:
        tenant = scope_of(request).narrow(Tenant.objects.filter(slug=request.GET.get("tenant", "")), "pk").first()
        if tenant is None:
            raise Http404
        activating = ActivationForm(request.POST) if "activate" in request.POST else None
        if activating and activating.is_valid() and (answer := self._activate(request, tenant, activating)):
            return answer
        rules = dry_run.rules_of_sync(tenant.pk)
        form = RulesForm(rules, request.POST if "dry_run" in request.POST else None)
        found = self._result(request, tenant, form)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Dry run of the routing of {tenant}",
            "opts": self.opts,
            "tenant": tenant,
            "form": form,
            "found": found,
            "sides": _table(found, rules) if found else [],
            "examples": _examples(found) if found else [],
            "activation": activating or _offer(found) if self._may_activate(request, tenant) else None,
        }
        return TemplateResponse(request, "admin/payments/dry_run.html", context)

    def _result(self, request: HttpRequest, tenant: Tenant, form: RulesForm) -> DryRun | None:
        if not form.is_bound or not form.is_valid():
            return None
        try:
            return dry_run.run_sync(tenant_id=tenant.pk, edits=form.edits(), last=form.cleaned_data["last"])
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
            return None

    def _may_activate(self, request: HttpRequest, tenant: Tenant) -> bool:
        return scope_of(request).allows(OWN, tenant.pk)

    def _activate(self, request: HttpRequest, tenant: Tenant, form: ActivationForm) -> HttpResponse | None:
        if not self._may_activate(request, tenant):
            self.message_user(request, "Only an owner of the tenant can activate rules.", messages.ERROR)
            return None
        try:
            changed = activate.activate_sync(
                tenant_id=tenant.pk,
                edits=form.cleaned_data["edits"],
                rules=form.cleaned_data["rules"],
                actor=request.user.get_username(),
                reason=form.cleaned_data["reason"],
            )
        except Problem as problem:
            self.message_user(request, problem.detail, messages.ERROR)
            return None
        said = f"In force now: {', '.join(changed)}." if changed else "No rule changes."
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:payments_processor_changelist", query={"tenant": tenant.slug}))


def _offer(found: DryRun | None) -> ActivationForm | None:
    """The form that activates the rules of this dry run."""
    if found is None or not found.edits:
        return None
    return ActivationForm(initial={"edits": found.edits, "rules": found.rules})


def _table(found: DryRun, rules: Sequence[Rule]) -> list[tuple[str, list[str]]]:
    """Rows of the comparison: the real decisions, the current rules, the edited rules."""
    sides = (found.actual, found.before, found.after)
    rows = [(rule.name, [f"{side.counts[rule.name]:,}" for side in sides]) for rule in rules]
    if any(side.counts[WAITS] for side in sides):
        rows.append(("wait: no processor can take them", [f"{side.counts[WAITS]:,}" for side in sides]))
    rows += [
        (f"fees, {currency}", [decimal_text(side.fees[currency], currency) for side in sides])
        for currency in sorted({currency for side in sides for currency in side.fees})
    ]
    return [*rows, ("expected success", [_success(side) for side in sides])]


def _success(side: Side) -> str:
    return "unknown" if side.success is None else f"{side.success:.2%}"


def _examples(found: DryRun) -> list[dict[str, str]]:
    return [
        {
            "id": str(one.correlation_id),
            "amount": f"{decimal_text(one.amount, one.currency)} {one.currency}",
            "before": one.before or "waits",
            "after": one.after or "waits",
            "reason": one.reason,
        }
        for one in found.examples
    ]
