"""Operators' pages of processors."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.admin.dry_run import DryRunPage
from payments.admin.endpoints import breaker_pill
from payments.admin.processor_form import ProcessorForm, names_of_options
from payments.models import Endpoint, Payment, Processor
from payments.processors.options import KNOWN
from payments.routing import accounts, operate
from registry.data import clock
from registry.operators.cells import ago, exact, link_to_list, pill
from registry.operators.lists import Attaching, TenantFilter
from registry.operators.reasoned import Reasoned
from registry.operators.scope import SUPERUSERS
from registry.operators.sections import ROUTE
from registry.tenants.encryption import Sealed


@admin.register(Processor)
class ProcessorAdmin(DryRunPage, Attaching, Reasoned):
    section, place, purpose = ROUTE, 1, "Accounts at processors: add, switch on and off, simulate routing."
    form = ProcessorForm
    # The address is called from inside our network: superusers only.
    add_roles = change_roles = SUPERUSERS
    list_display = ["name", "kind", "fee_text", "state", "breaker", "health", "trend", "links", "tenant"]
    list_filter = [TenantFilter, "kind", "enabled"]
    list_select_related = ["tenant"]
    search_fields = ["name", "tenant__slug"]
    sortable_by = ("name", "tenant")
    add_fields = ("tenant", "name", "kind", "url", "fee", "enabled", "secret_key", "webhook_secret")
    change_fields = (
        "tenant", "name", "kind", "url", "fee", "keys", "secret_key", "webhook_secret", "state", "breaker", "health", "trend",
        "links", "created", "others",
    )  # fmt: skip
    readonly_fields = (
        "tenant", "name", "kind", "keys", "state", "breaker", "health", "trend", "links", "created", "others",
    )  # fmt: skip
    actions = [operate.DISABLE, operate.ENABLE]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """Options and secrets are shown only to those who may change them; secrets only of the kind that has some."""
        fields = super().get_fields(request, obj)
        hidden = set()
        if not isinstance(obj, Processor):
            return fields
        if not self.has_change_permission(request, obj):
            hidden = {"secret_key", "webhook_secret", "others"}
        if obj.kind != "stripe":
            hidden |= {"keys", "secret_key", "webhook_secret"}
        if not _others(obj):
            hidden.add("others")
        return [name for name in fields if name not in hidden]

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """The options stand in a group of their own: of the processor's kind, or of each kind while it has none."""
        fields = self.get_fields(request, obj)
        if isinstance(obj, Processor):
            if not self.has_change_permission(request, obj):
                return [(None, {"fields": fields})]
            groups = [("Options", [*names_of_options(""), *names_of_options(obj.kind)])]
        else:
            groups = [("Options", names_of_options(""))]
            groups += [(f"Options of kind {kind}", names_of_options(kind)) for kind in ("stripe", "sandbox")]
        first = [name for name in fields if name != "reason"]
        shown = [(title, {"fields": names}) for title, names in groups if names]
        return [(None, {"fields": first}), *shown, (None, {"fields": ["reason"]})]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change and "url" in form.changed_data:
            obj.public_only = False  # entered by an operator of the service
        super().save_model(request, obj, form, change)
        if form.secrets:
            obj.secrets = accounts.sealed(obj, form.secrets)  # encrypted for its id, which a new one has only now
            obj.save(update_fields=["secrets"])

    @admin.display(description="created")
    def created(self, processor: Processor) -> SafeString | str:
        return exact(processor.created_at)

    @admin.display(description="other options")
    def others(self, processor: Processor) -> str:
        """Names of options that no kind reads, and no form changes; a value may be somebody's secret."""
        return ", ".join(_others(processor))

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
        asked = ago(max(0.0, (clock.now() - endpoint.polled_at).total_seconds()))
        said = "failing" if endpoint.failing else "well"
        return f"{said}, reported minimum {endpoint.min_response_ms} ms, {asked} ago"

    @admin.display(description="latency")
    def trend(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        return f"{endpoint.trend_ms:.0f} ms" if endpoint and endpoint.trend_ms else "–"

    @admin.display(description="links")
    def links(self, processor: Processor) -> SafeString:
        return link_to_list(Payment, "payments", tenant=processor.tenant.slug, processor=processor.pk)


def _others(processor: Processor) -> list[str]:
    return sorted(set(processor.options) - KNOWN) if isinstance(processor.options, dict) else []
