"""Operators' page for dry runs of routing: edit a tenant's rules, see where its payments would have gone, activate."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from payments.routing import activate, dry_run
from payments.routing.dry_run import DryRun
from payments.routing.rules_form import ActivationForm, RulesForm, examples, offer, table
from registry.errors import Problem
from registry.models import Tenant
from registry.operators.scope import OWN, TenantScoped, scope_of


class DryRunPage(TenantScoped):
    """Adds the page for dry runs to the list of processors."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.dry_run)
        return [path("simulate/", view, name="payments_processor_dry_run"), *super().get_urls()]

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
            "title": f"Simulate routing of {tenant}",
            "opts": self.opts,
            "tenant": tenant,
            "form": form,
            "found": found,
            "sides": table(found, rules) if found else [],
            "examples": examples(found) if found else [],
            "activation": activating or offer(found) if self._may_activate(request, tenant) else None,
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
