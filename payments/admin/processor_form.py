"""The form of a processor: address, a field for each option of its kind, and secrets that are never shown again."""

from typing import Any

from django import forms

from payments.processors.options import OPTIONS, ProcessorOption, Value
from payments.routing import accounts
from registry.edge.typed_numbers import WholeNumberField
from registry.errors import Problem
from registry.operators.reasoned import ReasonedForm

SECRET = {"size": 60, "autocomplete": "new-password"}
PREFIX = "option_"  # of the names of fields of options


def field_of(option: ProcessorOption) -> forms.Field:
    """The form field in which an option's value is entered."""
    given: dict[str, Any] = {"required": False, "label": option.label, "help_text": option.help}
    match option.value:
        case Value.FLAG:
            return forms.BooleanField(**given)
        case Value.SHARE:
            return forms.FloatField(
                min_value=0, max_value=1, widget=forms.TextInput(attrs={"inputmode": "decimal"}), **given
            )
        case Value.SECONDS:
            return forms.FloatField(
                min_value=0, max_value=86_400, widget=forms.TextInput(attrs={"inputmode": "decimal"}), **given
            )
        case Value.MILLISECONDS:
            return WholeNumberField(min_value=0, max_value=86_400_000, **given)
    if option.choices:
        return forms.ChoiceField(choices=option.choices, **given)
    return forms.CharField(max_length=255, **given)


def names_of_options(kind: str) -> list[str]:
    """The fields of the options that processors of `kind` have, and no other kind; of "" those that all have."""
    return [f"{PREFIX}{one.name}" for one in OPTIONS if (kind in one.kinds if kind else not one.kinds)]


class ProcessorForm(ReasonedForm):
    url = forms.CharField(
        max_length=500,
        required=False,
        label="URL",
        help_text="kind http: its URL; kind stripe: empty for Stripe itself",
        widget=forms.TextInput(attrs={"size": 60}),  # shows a whole address
    )
    # Neither is shown again: an empty field leaves the stored one.
    secret_key = forms.CharField(
        max_length=255, required=False, help_text="kind stripe: sk_… or rk_…", widget=forms.PasswordInput(attrs=SECRET)
    )
    webhook_secret = forms.CharField(
        max_length=255,
        required=False,
        help_text="kind stripe: whsec_…; a new one is used beside the earlier ones",
        widget=forms.PasswordInput(attrs=SECRET),
    )
    kind = forms.ChoiceField(help_text="It cannot be changed later.")
    secrets: dict[str, Any] | None = None  # to be encrypted; None where nothing was entered

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        if "kind" in self.fields:
            from payments.processors import KINDS  # here: a kind may import a client that is slow to load

            self.fields["kind"].choices = [(kind, kind) for kind in sorted(KINDS)]  # type: ignore[attr-defined]
        for option in OPTIONS:
            name = f"{PREFIX}{option.name}"
            if self.instance.pk and not option.fits(self.instance.kind):
                self.fields.pop(name, None)
            elif option.name in self._stored:
                self.initial[name] = self._stored[option.name]

    @property
    def _stored(self) -> dict[str, Any]:
        return self.instance.options if isinstance(self.instance.options, dict) else {}

    def _get_validation_exclusions(self) -> set[str]:
        """models.URLField wants a dot in the host name; hosts on a private network have none."""
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
        self._take_options(given, kind)
        self._keep_the_address_of_what_is_unsettled()
        self._take_secrets(given, kind)
        return given

    def _take_options(self, given: dict[str, Any], kind: str) -> None:
        """Store the options that were changed. Those without a field, and those left alone, stay as they are."""
        options = dict(self._stored)
        for option in OPTIONS:
            name = f"{PREFIX}{option.name}"
            if name not in self.changed_data or name not in given:
                continue
            if given[name] in (None, "", False):
                options.pop(option.name, None)
            elif option.fits(kind):
                options[option.name] = given[name]
            else:
                self.add_error(name, f"Kind {kind} has no such option.")
        self.instance.options = options

    def _take_secrets(self, given: dict[str, Any], kind: str) -> None:
        """Move secrets out of the fields, so that neither the page nor the audit trail repeats them."""
        entered = {"secretKey": given.get("secret_key"), "webhookSecret": given.get("webhook_secret")}
        _, new = accounts.split_options({name: one for name, one in entered.items() if one})
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
        """Refuse another account's key while payments are unsettled. Raises Refused.

        The processor is not asked whose key it is: this page has a transaction open.
        """
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


_FIELDS = {f"{PREFIX}{option.name}": field_of(option) for option in OPTIONS}
ProcessorForm.declared_fields.update(_FIELDS)
ProcessorForm.base_fields.update(_FIELDS)
