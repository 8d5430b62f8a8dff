"""Operators' pages of processors."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from payments.admin.dry_run import DryRunPage
from payments.admin.endpoints import breaker_pill
from payments.admin.processor_form import ProcessorForm
from payments.models import Endpoint, Payment, Processor
from payments.routing import accounts, operate
from registry.operators.cells import ago, link_to_list, pill
from registry.operators.lists import Attaching, TenantFilter
from registry.operators.reasoned import Reasoned
from registry.operators.scope import SUPERUSERS
from registry.tenants.encryption import Sealed


@admin.register(Processor)
class ProcessorAdmin(DryRunPage, Attaching, Reasoned):
    form = ProcessorForm
    # The address is called from inside our network: superusers only.
    add_roles = change_roles = SUPERUSERS
    list_display = ["name", "tenant", "kind", "fee_text", "state", "breaker", "health", "trend", "links"]
    list_filter = [TenantFilter, "kind", "enabled"]
    list_select_related = ["tenant"]
    search_fields = ["name", "tenant__slug"]
    sortable_by = ("name", "tenant")
    add_fields = ("tenant", "name", "kind", "url", "fee", "options", "secret_key", "webhook_secret", "enabled")
    change_fields = (
        "tenant", "name", "kind", "url", "fee", "options", "keys", "secret_key", "webhook_secret", "state", "breaker",
        "health", "trend", "links", "created_at",
    )  # fmt: skip
    readonly_fields = ("tenant", "name", "kind", "keys", "state", "breaker", "health", "trend", "links", "created_at")
    actions = [operate.DISABLE, operate.ENABLE]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """Options and secrets are shown only to those who may change them."""
        fields = super().get_fields(request, obj)
        own = {"options", "secret_key", "webhook_secret"}
        return fields if self.has_change_permission(request, obj) else [f for f in fields if f not in own]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if form.secrets:
            obj.secrets = accounts.sealed(obj, form.secrets)  # encrypted for its id, which a new one has only now
            obj.save(update_fields=["secrets"])

    @admin.display(description="keys")
    def keys(self, processor: Processor) -> str:
        """Which secrets are stored; never their values."""
        try:
            secrets = accounts.opened(processor)
        except Sealed as error:
            return error.detail
        of_webhooks = len(secrets.get("webhookSecrets", []))
        said = ["secret key"] if secrets.get("secretKey") else []
        said += [f"{of_webhooks} webhook secret{'s' if of_webhooks > 1 else ''}"] if of_webhooks else []
        return ", ".join(said) or "none"

    def attach(self, rows: list[Processor]) -> None:
        found = Endpoint.objects.in_bulk({row.endpoint for row in rows})
        for row in rows:
            row.shared = found.get(row.endpoint)  # type: ignore[attr-defined]

    def shared(self, processor: Processor) -> Endpoint | None:
        if not hasattr(processor, "shared"):
            self.attach([processor])
        return processor.shared  # type: ignore[attr-defined]

    @admin.display(description="fee")
    def fee_text(self, processor: Processor) -> str:
        return f"{processor.fee * 100:.4f}".rstrip("0").rstrip(".") + " %"

    @admin.display(description="enabled")
    def state(self, processor: Processor) -> SafeString:
        return pill("●", "green", "enabled") if processor.enabled else pill("–", "grey", "disabled")

    @admin.display(description="breaker")
    def breaker(self, processor: Processor) -> SafeString:
        return breaker_pill(self.shared(processor))

    @admin.display(description="health")
    def health(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        if endpoint is None or endpoint.polled_at is None:
            return "not asked yet"
        asked = ago(max(0.0, (timezone.now() - endpoint.polled_at).total_seconds()))
        return f"{'failing' if endpoint.failing else 'well'}, ≥ {endpoint.min_response_ms} ms, {asked} ago"

    @admin.display(description="response time")
    def trend(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        return f"{endpoint.trend_ms:.0f} ms" if endpoint and endpoint.trend_ms else "–"

    @admin.display(description="links")
    def links(self, processor: Processor) -> SafeString:
        return link_to_list(Payment, "payments", tenant=processor.tenant.slug, processor=processor.pk)
