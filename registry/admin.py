"""Operators' pages of tenants, keys, memberships and the audit trail. Apps above have pages of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from registry.models import ApiKey, AuditEntry, Membership, Tenant
from registry.operators.confirm import Done, Order, Reasoned, ReasonedForm, guarded, moves
from registry.operators.lists import Attaching, CappedPaginator, TenantFilter, link_to, link_to_list, pill, since
from registry.operators.scope import OPERATE, OWN, SUPERUSERS, TenantScoped, scope_of
from registry.tenants import audit, audit_chain, keys
from registry.tenants.access import rate_of

admin.site.site_header = admin.site.site_title = "Registry"
admin.site.index_title = "Operations"
admin.site.empty_value_display = "–"


@dataclass(frozen=True)
class Belonging:
    """A kind of row that tenants own: counted and linked on their page. Apps above add theirs to BELONGINGS."""

    model: type[models.Model]
    words: str  # "keys"
    count: Callable[[Sequence[int]], dict[int, int]]  # tenant ids → how many, in one query


def rows_by_tenant(queryset: models.QuerySet) -> Callable[[Sequence[int]], dict[int, int]]:
    """For small tables: a plain count per tenant."""

    def count(tenants: Sequence[int]) -> dict[int, int]:
        found = queryset.filter(tenant_id__in=tenants).order_by().values("tenant_id").annotate(n=models.Count("*"))
        return {row["tenant_id"]: row["n"] for row in found}

    return count


BELONGINGS: list[Belonging] = [Belonging(ApiKey, "keys", rows_by_tenant(ApiKey.objects.filter(revoked_at=None)))]

STATUS_LOOKS = {"active": ("●", "green"), "suspended": ("◑", "amber"), "closed": ("–", "grey")}


class TenantForm(ReasonedForm):
    def clean_currency(self) -> str:
        return self.cleaned_data["currency"].upper()  # the model knows which there are

    def clean_patience(self) -> int:
        """Left empty it stays as it is."""
        given = self.cleaned_data["patience"]
        return self.instance.patience if given is None else given


@admin.register(Tenant)
class TenantAdmin(Attaching, Reasoned):
    tenant_path = "id"
    form = TenantForm
    add_roles = change_roles = act_roles = SUPERUSERS
    list_display = ["slug", "name", "state", "mode", "open", "currency", "belongings", "created_at"]
    list_filter = ["status", "mode", "open"]
    search_fields = ["slug", "name"]
    add_fields = ("slug", "name", "currency", "mode", "open", "max_amount", "patience", "settings")
    # The mode stays: a live tenant that became a sandbox could be purged.
    change_fields = (
        "slug",
        "name",
        "status",
        "mode",
        "currency",
        "open",
        "max_amount",
        "patience",
        "settings",
        "belongings",
        "created_at",
    )
    readonly_fields = ("slug", "mode", "status", "belongings", "created_at")
    actions = [
        guarded(
            "tenant.suspend",
            label="Suspend: keys stop working",
            warning="Their keys are refused within a second. What was accepted before is still settled.",
            expects={"status": Tenant.Status.ACTIVE},
            perform=moves(
                "tenant.suspend",
                expects={"status": Tenant.Status.ACTIVE},
                sets=lambda: {"status": Tenant.Status.SUSPENDED},
            ),
        ),
        guarded(
            "tenant.resume",
            label="Resume: keys work again",
            warning="Requests with these tenants' keys are accepted again.",
            expects={"status": Tenant.Status.SUSPENDED},
            perform=moves(
                "tenant.resume",
                expects={"status": Tenant.Status.SUSPENDED},
                sets=lambda: {"status": Tenant.Status.ACTIVE},
            ),
        ),
    ]

    def attach(self, rows: list[Tenant]) -> None:
        ids = [row.pk for row in rows]
        counts = [(belonging, belonging.count(ids)) for belonging in BELONGINGS]
        for row in rows:
            row.counted = [(belonging, found.get(row.pk, 0)) for belonging, found in counts]  # type: ignore[attr-defined]

    @admin.display(description="has")
    def belongings(self, tenant: Tenant) -> SafeString:
        if not hasattr(tenant, "counted"):
            self.attach([tenant])
        return format_html_join(
            " · ",
            "{}",
            (
                (link_to_list(belonging.model, f"{count:,} {belonging.words}", tenant=tenant.slug),)
                for belonging, count in tenant.counted  # type: ignore[attr-defined]
            ),
        )

    @admin.display(description="status", ordering="status")
    def state(self, tenant: Tenant) -> SafeString:
        return pill(*STATUS_LOOKS[tenant.status], tenant.get_status_display().lower())


# -- Keys ------------------------------------------------------------------------------------------------


class ApiKeyForm(ReasonedForm):
    scopes = forms.MultipleChoiceField(
        choices=ApiKey.Scope.choices,
        initial=[ApiKey.Scope.READ, ApiKey.Scope.WRITE],
        widget=forms.CheckboxSelectMultiple,
    )

    def clean_rate_limit(self) -> str:
        limit = self.cleaned_data["rate_limit"].strip()
        if limit:
            try:
                rate_of(limit)
            except ValueError:
                raise forms.ValidationError("Such as 100/second or 5000/hour.") from None
        return limit


def _revoke(page: TenantScoped, order: Order) -> Done:
    prefixes = [key.prefix for key in order.rows]
    done = keys.revoke_all_sync(prefixes=prefixes, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(prefixes) - done)


@admin.register(ApiKey)
class ApiKeyAdmin(Reasoned):
    form = ApiKeyForm
    add_roles = OWN
    act_roles = OPERATE  # a leaked key cannot wait for the owner
    list_display = ["prefix", "tenant_link", "name", "rights", "rate_limit", "state", "last_used_at", "created_at"]
    list_filter = [TenantFilter, ("revoked_at", admin.EmptyFieldListFilter), since("created_at", "created")]
    list_select_related = ["tenant"]
    search_fields = ["prefix__startswith", "name"]
    add_fields = ("tenant", "name", "scopes", "rate_limit", "expires_at")
    change_fields = (
        "tenant_link",
        "prefix",
        "name",
        "rights",
        "rate_limit",
        "state",
        "created_at",
        "expires_at",
        "last_used_at",
    )
    readonly_fields = change_fields
    actions = [
        guarded(
            "apikey.revoke",
            label="Revoke",
            warning="Every request with one of these keys is refused within a second. It cannot be brought back.",
            expects={"revoked_at": None},
            perform=_revoke,
        )
    ]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        given = form.cleaned_data
        key, plain = keys.issue_sync(
            tenant=given["tenant"],
            actor=request.user.get_username(),
            scopes=given["scopes"],
            name=given["name"],
            expires_at=given["expires_at"],
            rate_limit=given["rate_limit"],
            reason=given["reason"],
        )
        obj.pk, obj.prefix = key.pk, key.prefix
        self.message_user(
            request,
            format_html(
                "The new key is <code>{}</code>. Copy it now: it is not kept and cannot be shown again.", plain
            ),
            messages.WARNING,
        )

    @admin.display(description="tenant", ordering="tenant__slug")
    def tenant_link(self, key: ApiKey) -> SafeString:
        return link_to(Tenant, key.tenant_id, key.tenant)

    @admin.display(description="scopes")
    def rights(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return pill("✕", "red", "revoked")
        if key.expires_at and key.expires_at <= timezone.now():
            return pill("–", "grey", "expired")
        return pill("●", "green", "usable")


# -- People ------------------------------------------------------------------------------------------------


def _remove(page: TenantScoped, order: Order) -> Done:
    done = 0
    rows = list(order.rows.select_related("user", "tenant"))
    with transaction.atomic():
        for membership in rows:
            removed, _ = Membership.objects.filter(pk=membership.pk, role=membership.role).delete()
            if removed:
                done += 1
                audit.record_sync(
                    actor=order.actor,
                    action="membership.remove",
                    target=str(membership),
                    tenant_id=membership.tenant_id,
                    reason=order.reason,
                )
    return Done(rows=done, lost=len(rows) - done)


@admin.register(Membership)
class MembershipAdmin(Reasoned):
    add_roles = change_roles = act_roles = OWN
    list_display = ["user", "tenant", "role", "created_at"]
    list_filter = [TenantFilter, "role"]
    list_select_related = ["user", "tenant"]
    search_fields = ["user__username", "user__email"]
    add_fields = ("tenant", "user", "role")
    change_fields = ("tenant", "user", "role", "created_at")
    readonly_fields = ("tenant", "user", "created_at")
    actions = [
        guarded(
            "membership.remove",
            label="Remove from the tenant",
            warning="These people see nothing of the tenant any more. Their accounts stay.",
            expects={},
            perform=_remove,
        )
    ]


# -- The audit trail -----------------------------------------------------------------------------------------


CHAINS = 50  # followed for one page: each costs as much as it is long
HOLDS, BROKEN = pill("●", "green", "holds"), pill("✕", "red", "broken")


@admin.register(AuditEntry)
class AuditEntryAdmin(TenantScoped):
    paginator = CappedPaginator
    list_display = ["at", "actor", "action", "target", "rows", "reason", "tenant"]
    list_filter = [TenantFilter, since("at", "when")]
    list_select_related = ["tenant"]
    search_fields = ["actor__exact", "action__exact", "target"]
    search_help_text = "An actor or an action in full, or a part of the target."
    sortable_by = ()
    fields = ("at", "actor", "action", "target", "rows", "reason", "tenant", "detail")
    readonly_fields = fields
    actions = None

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verify)
        return [path("verify/", view, name="registry_auditentry_verify"), *super().get_urls()]

    def verify(self, request: HttpRequest) -> HttpResponse:
        """Follow the chains of one's own tenants, or of the one that is asked for; the service's own is superusers'."""
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
            "title": "Does the trail hold?",
            "opts": self.opts,
            "capped": len(chains) >= CHAINS,
            "verdicts": [(name, HOLDS if verdict.sound else BROKEN, verdict) for name, verdict in found],
        }
        return TemplateResponse(request, "admin/registry/audit_verify.html", context)
