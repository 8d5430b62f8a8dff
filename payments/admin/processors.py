"""Operators' pages of processors, and of the endpoints that tenants share."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from payments.admin.dry_run import Rehearsing
from payments.models import Endpoint, Payment, Processor
from payments.routing import accounts
from payments.templatetags.payments import BREAKERS
from registry.errors import Problem
from registry.operators.confirm import Reasoned, ReasonedForm, guarded, moves
from registry.operators.lists import (
    Attaching,
    TenantFilter,
    ago,
    link_to_list,
    pill,
)
from registry.operators.scope import SUPERUSERS, TenantScoped
from registry.tenants.encryption import Sealed

SECRET = {"size": 60, "autocomplete": "new-password"}


def breaker_pill(endpoint: Endpoint | None) -> SafeString:
    if endpoint is None:
        return pill("○", "grey", "not used yet")
    if endpoint.breaker == Endpoint.Breaker.CLOSED and endpoint.failing:
        return pill("◑", "amber", "says it is failing")
    return pill(*BREAKERS[endpoint.breaker])


class ProcessorForm(ReasonedForm):
    url = forms.CharField(
        max_length=500,
        required=False,
        help_text="kind http: where it answers; kind stripe: empty for Stripe itself",
        widget=forms.TextInput(attrs={"size": 60}),  # a whole address in sight
    )
    # Neither is ever shown again: an empty field leaves what there is.
    secret_key = forms.CharField(
        max_length=255, required=False, help_text="kind stripe: sk_… or rk_…", widget=forms.PasswordInput(attrs=SECRET)
    )
    webhook_secret = forms.CharField(
        max_length=255,
        required=False,
        help_text="kind stripe: whsec_…; a new one stands beside those before it",
        widget=forms.PasswordInput(attrs=SECRET),
    )
    secrets: dict[str, Any] | None = None  # what is to be sealed, where anything was entered

    def _get_validation_exclusions(self) -> set[str]:
        """models.URLField wants a dot in the host's name, which hosts on a private network have not."""
        return super()._get_validation_exclusions() | {"url"}  # type: ignore[misc]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        kind = given.get("kind", self.instance.kind)
        for field, check in (("url", lambda: accounts.check_url(kind, given.get("url", ""))),
                             ("kind", lambda: accounts.check_kind(kind)),
                             ("fee", lambda: accounts.check_fee(given["fee"]))):  # fmt: skip
            if field in given:
                try:
                    check()
                except accounts.Refused as error:
                    self.add_error(field, error.detail)
        self._keep_the_address_of_what_is_unsettled()
        self._take_secrets(given, kind)
        return given

    def _take_secrets(self, given: dict[str, Any], kind: str) -> None:
        """What is secret leaves the fields, so that neither the page nor the audit trail repeats it."""
        entered = {"secretKey": given.get("secret_key"), "webhookSecret": given.get("webhook_secret")}
        options = given["options"] if isinstance(given.get("options"), dict) else {}
        open_ones, new = accounts.split_options({**options, **{name: one for name, one in entered.items() if one}})
        if "options" in given:
            given["options"] = open_ones
        given |= {name: "" for name in ("secret_key", "webhook_secret") if name in given}
        tenant = given.get("tenant") or (self.instance.tenant if self.instance.pk else None)
        if tenant is None or (not new and self.instance.pk and not {"kind", "url"} & set(self.changed_data)):
            return
        try:
            self.secrets = accounts.renewed(self.instance, new)
            accounts.check_secrets(kind, tenant, self.secrets, url=given.get("url", self.instance.url))
            self._keep_the_owner_of_what_is_unsettled(new)
        except Problem as error:
            self.add_error("secret_key" if "secret_key" in self.fields else None, error.detail)

    def _keep_the_owner_of_what_is_unsettled(self, new: dict[str, Any]) -> None:
        """Nobody is asked from within a page's transaction whose key it is. Raises Refused."""
        if self.instance.pk is None or not accounts.another_key(self.instance, new):
            return
        if count := accounts.unsettled_at_sync(self.instance):
            raise accounts.Refused(
                f"{accounts.must_stay(count, 'with a key of the same account')}`manage.py processor secrets` takes one: "
                "it asks the processor whose it is."
            )

    def _keep_the_address_of_what_is_unsettled(self) -> None:
        moved = [field for field in ("kind", "url") if field in self.changed_data]
        if self.instance.pk is None or not moved or not (count := accounts.unsettled_at_sync(self.instance)):
            return
        self.add_error(
            moved[0],
            f"{accounts.must_stay(count, 'at this address')}"
            "Disable this processor and add a new one with the other address.",
        )


@admin.register(Processor)
class ProcessorAdmin(Rehearsing, Attaching, Reasoned):
    form = ProcessorForm
    # An address is called from inside our network: only who runs the service may name one.
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
    actions = [
        guarded(
            "processor.disable",
            label="Disable: send nothing new",
            warning="Nothing new is sent there; what is in doubt there is still asked about. Others take over.",
            expects={"enabled": True},
            perform=moves("processor.disable", expects={"enabled": True}, sets=lambda: {"enabled": False}),
        ),
        guarded(
            "processor.enable",
            label="Enable",
            warning="Payments may be sent there again, by fee and health.",
            expects={"enabled": False},
            perform=moves("processor.enable", expects={"enabled": False}, sets=lambda: {"enabled": True}),
        ),
    ]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """Options may be a processor's own matter: they are shown to those who may change them."""
        fields = super().get_fields(request, obj)
        own = {"options", "secret_key", "webhook_secret"}
        return fields if self.has_change_permission(request, obj) else [f for f in fields if f not in own]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if form.secrets:
            obj.secrets = accounts.sealed(obj, form.secrets)  # bound to its number, which a new one has only now
            obj.save(update_fields=["secrets"])

    @admin.display(description="keys")
    def keys(self, processor: Processor) -> str:
        """Which there are; never what they are."""
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

    @admin.display(description="sends")
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

    @admin.display(description="answers in")
    def trend(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        return f"{endpoint.trend_ms:.0f} ms" if endpoint and endpoint.trend_ms else "–"

    @admin.display(description="see")
    def links(self, processor: Processor) -> SafeString:
        return link_to_list(Payment, "payments", tenant=processor.tenant.slug, processor=processor.pk)


@admin.register(Endpoint)
class EndpointAdmin(TenantScoped):
    """Shared by all tenants at the same address, so that only superusers see and turn it."""

    tenant_path = ""
    act_roles = SUPERUSERS
    list_display = [
        "key",
        "state",
        "failures",
        "min_response_ms",
        "trend",
        "polled_at",
        "breaker_changed_at",
    ]
    list_filter = ["breaker", "failing"]
    search_fields = ["key"]
    fields = (
        "key", "state", "failing", "failures", "min_response_ms", "trend", "polled_at", "next_poll_at",
        "breaker_changed_at",
    )  # fmt: skip
    readonly_fields = fields
    actions = [
        guarded(
            "endpoint.close",
            label="Close the breaker: send again",
            warning="Payments are sent there at once. If it still fails, the breaker opens by itself.",
            expects={"breaker__in": [Endpoint.Breaker.OPEN, Endpoint.Breaker.HALF_OPEN]},
            perform=moves(
                "endpoint.close",
                expects={"breaker__in": [Endpoint.Breaker.OPEN, Endpoint.Breaker.HALF_OPEN]},
                sets=lambda: {
                    "breaker": Endpoint.Breaker.CLOSED, "failures": 0, "breaker_changed_at": Now(),
                },
            ),
        ),
        guarded(
            "endpoint.open",
            label="Open the breaker: send nothing",
            warning=(
                "All tenants' payments go elsewhere or wait. Single probes go on, and a good answer closes the breaker "
                "again; to keep payments away for longer, disable the processors."
            ),
            expects={"breaker__in": [Endpoint.Breaker.CLOSED, Endpoint.Breaker.HALF_OPEN]},
            perform=moves(
                "endpoint.open",
                expects={"breaker__in": [Endpoint.Breaker.CLOSED, Endpoint.Breaker.HALF_OPEN]},
                sets=lambda: {"breaker": Endpoint.Breaker.OPEN, "breaker_changed_at": Now()},
            ),
        ),
    ]  # fmt: skip

    @admin.display(description="breaker")
    def state(self, endpoint: Endpoint) -> SafeString:
        return breaker_pill(endpoint)

    @admin.display(description="answers in")
    def trend(self, endpoint: Endpoint) -> str:
        return f"{endpoint.trend_ms:.0f} ms" if endpoint.trend_ms else "–"
