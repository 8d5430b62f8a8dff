"""Forms of a merchant's processors, one per kind: a new one has settings and keys, an existing one a form for each.

Keys are write-only: no form shows one again.
"""

from copy import copy
from decimal import Decimal
from typing import Any, ClassVar

from django import forms

from payments.models import Processor

PERCENT = Decimal(100)
WORDS = {"http": "HTTP", "stripe": "Stripe", "sandbox": "Test processor"}


class ProcessorSettings(forms.Form):
    """What every kind has."""

    kind: ClassVar[str] = "sandbox"
    secrets: ClassVar[dict[str, str]] = {}  # field → name of the secret
    settings: ClassVar[dict[str, str]] = {}  # field → name of the option

    name = forms.SlugField(
        max_length=63,
        help_text="Letters, digits, - and _. Payments, reports and the API call it by this name; it cannot be changed.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    fee = forms.DecimalField(
        label="Fee, % of the amount",
        min_value=0,
        max_value=Decimal("99.9999"),
        max_digits=6,
        decimal_places=4,
        help_text="What it costs you. A payment goes to the cheapest processor that works and answers in time.",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    only_by_name = forms.BooleanField(
        label="Use it only for payments that ask for it by name",
        required=False,
        help_text="Routing then never chooses it by itself.",
    )

    def __init__(self, data: Any = None, *, processor: Processor | None = None) -> None:
        """`processor`: the one whose settings are changed; None for a new one."""
        super().__init__(data, initial=_initial(self, processor) if processor else None)
        self.processor = processor
        if processor is not None:
            for field in ("name", *self.secrets):
                del self.fields[field]

    @property
    def fee_share(self) -> Decimal:
        """The fee as a share of the amount."""
        return Decimal(self.cleaned_data["fee"]) / PERCENT

    @property
    def options(self) -> dict[str, Any]:
        """The options as Processor.options has them; None removes one."""
        given = {option: self.cleaned_data[field] or None for field, option in self.settings.items()}
        return {**given, "onlyByName": self.cleaned_data["only_by_name"] or None}

    @property
    def given_secrets(self) -> dict[str, str]:
        """The secrets that were entered, by their names."""
        return {name: self.cleaned_data[field] for field, name in self.secrets.items() if self.cleaned_data.get(field)}


class ProcessorKeys(forms.Form):
    """New keys of an existing processor. An empty field leaves the stored one."""

    def __init__(self, of: type[ProcessorSettings], data: Any = None) -> None:
        super().__init__(data, auto_id="keys_%s")
        self.secrets = of.secrets
        for field in of.secrets:
            self.fields[field] = copy(of.base_fields[field])
            self.fields[field].required = False

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if not any(given.values()):
            raise forms.ValidationError("Enter at least one key.")
        return given

    @property
    def given_secrets(self) -> dict[str, str]:
        """The secrets that were entered, by their names."""
        return {name: self.cleaned_data[field] for field, name in self.secrets.items() if self.cleaned_data.get(field)}


def _initial(form: ProcessorSettings, processor: Processor) -> dict[str, Any]:
    options = processor.options if isinstance(processor.options, dict) else {}
    return {
        "fee": f"{processor.fee * PERCENT:.4f}".rstrip("0").rstrip("."),
        "url": processor.url,
        "only_by_name": options.get("onlyByName") is True,
        **{field: options.get(option, "") for field, option in form.settings.items()},
    }


class HttpSettings(ProcessorSettings):
    kind = "http"
    settings: ClassVar[dict[str, str]] = {"longest_delay": "longestDelay"}

    url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="Such as https://pay.example.com. We send to it, ask it what became of a payment, and ask for its health.",
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )
    longest_delay = forms.IntegerField(
        label="Longest delay, seconds",
        min_value=1,
        max_value=86_400,
        required=False,
        help_text="After this time it can no longer book a payment that was sent. Empty: 30 seconds.",
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )
    field_order = ("name", "url", "fee", "longest_delay", "only_by_name")


def _secret(label: str, help_text: str, **options: Any) -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": "new-password", "spellcheck": "false"})
    return forms.CharField(label=label, max_length=255, help_text=help_text, widget=widget, **options)


class StripeSettings(ProcessorSettings):
    kind = "stripe"
    secrets: ClassVar[dict[str, str]] = {"secret_key": "secretKey", "webhook_secret": "webhookSecret"}
    settings: ClassVar[dict[str, str]] = {"publishable_key": "publishableKey", "capture": "capture"}

    secret_key = _secret(
        "Secret key", "sk_… or a restricted key rk_…, from Stripe's dashboard. Stored encrypted, never shown."
    )
    webhook_secret = _secret(
        "Webhook signing secret",
        "whsec_…, of the webhook endpoint that you add at Stripe. A new one is used beside the earlier ones.",
        required=False,
    )
    publishable_key = forms.RegexField(
        regex=r"pk_(test|live)_[A-Za-z0-9_]+",
        label="Publishable key",
        max_length=255,
        required=False,
        help_text="pk_…: the payer's browser uses it to enter a card. Not secret.",
        error_messages={"invalid": "A publishable key begins with pk_test_ or pk_live_."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    capture = forms.ChoiceField(
        label="Capture",
        choices=[("", "at once"), ("manual", "later: the payment is authorized first")],
        required=False,
    )
    field_order = ("name", "secret_key", "webhook_secret", "fee", "publishable_key", "capture", "only_by_name")


FORMS: dict[str, type[ProcessorSettings]] = {
    form.kind: form for form in (StripeSettings, HttpSettings, ProcessorSettings)
}
