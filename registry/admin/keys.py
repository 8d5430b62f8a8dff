"""Operators' pages of API keys."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.admin.operate import REVOKE_KEYS
from registry.data import clock
from registry.models import ApiKey, Tenant
from registry.operators.cells import exact, link_to, pill
from registry.operators.lists import TenantFilter, since
from registry.operators.reasoned import Reasoned, ReasonedForm
from registry.operators.scope import OPERATE, OWN
from registry.operators.sections import ACCESS
from registry.tenants import keys
from registry.tenants.limits import parse_limit


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
                parse_limit(limit)
            except ValueError:
                raise forms.ValidationError("Such as 100/second or 5000/hour.") from None
        return limit


@admin.register(ApiKey)
class ApiKeyAdmin(Reasoned):
    section, place, purpose = ACCESS, 3, "Keys of programs: make, look at, revoke."
    form = ApiKeyForm
    add_roles = OWN
    act_roles = OPERATE  # a leaked key cannot wait for the owner
    list_display = ["prefix", "name", "state", "rights", "rate_limit", "used", "created", "tenant_link"]
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
        "created",
        "expires_at",
        "used",
    )
    readonly_fields = change_fields
    actions = [REVOKE_KEYS]

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

    @admin.display(description="last used", ordering="last_used_at")
    def used(self, key: ApiKey) -> SafeString | str:
        return exact(key.last_used_at)

    @admin.display(description="created", ordering="created_at")
    def created(self, key: ApiKey) -> SafeString | str:
        return exact(key.created_at)

    @admin.display(description="scopes")
    def rights(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return pill("✕", "red", "revoked")
        if key.expires_at and key.expires_at <= clock.now():
            return pill("–", "grey", "expired")
        return pill("●", "green", "usable")
