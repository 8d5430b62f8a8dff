"""Operators' pages of the audit log, and the verification of its chains."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.safestring import SafeString

from registry.models import AuditEntry, Tenant
from registry.operators.cells import breakable, exact, pill
from registry.operators.lists import CappedPaginator, TenantFilter, since
from registry.operators.scope import TenantScoped, scope_of
from registry.operators.sections import BOOKS
from registry.tenants import audit_chain

CHAINS = 50  # verified for one page: each costs as much as it is long
HOLDS, BROKEN = pill("●", "green", "holds"), pill("✕", "red", "broken")


@admin.register(AuditEntry)
class AuditEntryAdmin(TenantScoped):
    section, place, purpose = BOOKS, 3, "Who did what, and why."
    paginator = CappedPaginator
    list_display = ["when", "actor_name", "action_name", "about", "reason", "rows", "tenant"]
    list_filter = [TenantFilter, since("at", "when")]
    list_select_related = ["tenant"]
    search_fields = ["actor__exact", "action__exact", "target"]
    search_help_text = "An actor or an action in full, or a part of the target."
    sortable_by = ()
    fields = ("when", "actor", "action", "target", "rows", "reason", "tenant", "detail")
    readonly_fields = fields
    actions = None

    @admin.display(description="at", ordering="at")
    def when(self, entry: AuditEntry) -> SafeString | str:
        return exact(entry.at)

    @admin.display(description="actor")
    def actor_name(self, entry: AuditEntry) -> SafeString:
        return breakable(entry.actor)

    @admin.display(description="action")
    def action_name(self, entry: AuditEntry) -> SafeString:
        return breakable(entry.action)

    @admin.display(description="target")
    def about(self, entry: AuditEntry) -> SafeString:
        return breakable(entry.target)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verify)
        return [path("verify/", view, name="registry_auditentry_verify"), *super().get_urls()]

    def verify(self, request: HttpRequest) -> HttpResponse:
        """Verify the chains of the person's tenants, or of `?tenant=`; the service's own chain for superusers only."""
        scope, slug = scope_of(request), request.GET.get("tenant")
        if not self.has_module_permission(request):
            raise PermissionDenied
        tenants = scope.narrow(Tenant.objects.filter(slug=slug) if slug else Tenant.objects.all(), "pk")
        chains = list(tenants.values_list("pk", "slug")[:CHAINS])
        if scope.everything and not slug:
            chains = [(audit_chain.SERVICE, "the service itself"), *chains]
        found = [(name, audit_chain.verify_sync(chain)) for chain, name in chains]
        context = {
            **self.admin_site.each_context(request),
            "title": "Verify audit log",
            "opts": self.opts,
            "capped": len(chains) >= CHAINS,
            "verdicts": [(name, HOLDS if verdict.sound else BROKEN, verdict) for name, verdict in found],
        }
        return TemplateResponse(request, "admin/registry/audit_verify.html", context)
