"""The forms of a dry run, and its comparison as rows of text. Shared by the console and the admin."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django import forms

from payments.money import decimal_text
from payments.routing import dry_run
from payments.routing.dry_run import WAITS, DryRun, Rule, Side
from registry.edge.typed_numbers import WholeNumberField


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


def offer(found: DryRun | None) -> ActivationForm | None:
    """The form that activates the rules of this dry run."""
    if found is None or not found.edits:
        return None
    return ActivationForm(initial={"edits": found.edits, "rules": found.rules})


def table(found: DryRun, rules: Sequence[Rule]) -> list[tuple[str, list[str]]]:
    """Rows of the comparison: the real decisions, the current rules, the edited rules."""
    sides = (found.actual, found.before, found.after)
    rows = [(rule.name, [f"{side.counts[rule.name]:,}" for side in sides]) for rule in rules]
    if any(side.counts[WAITS] for side in sides):
        rows.append(("Wait: no processor can take them", [f"{side.counts[WAITS]:,}" for side in sides]))
    rows += [
        (f"Fees, {currency}", [decimal_text(side.fees[currency], currency) for side in sides])
        for currency in sorted({currency for side in sides for currency in side.fees})
    ]
    return [*rows, ("Expected success", [_success(side) for side in sides])]


def _success(side: Side) -> str:
    return "unknown" if side.success is None else f"{side.success:.2%}"


def examples(found: DryRun) -> list[dict[str, str]]:
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
