"""Change pages of the admin that ask for a reason and record the change in the audit trail."""

from typing import Any

from django import forms
from django.db import models
from django.http import HttpRequest

from registry.operators.scope import TenantScoped
from registry.redaction import redact
from registry.tenants import audit


class ReasonedForm(forms.ModelForm):
    reason = forms.CharField(
        max_length=500, label="Why", help_text="Kept in the audit trail.", widget=forms.TextInput(attrs={"size": 60})
    )


class Reasoned(TenantScoped):
    """A change page with a field for the reason. The change and its audit entry are one transaction."""

    form = ReasonedForm
    change_fields: tuple[str, ...] = ()
    add_fields: tuple[str, ...] = ()

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        if obj is None:
            return [*self.add_fields, "reason"]
        return [*self.change_fields, "reason"] if self.has_change_permission(request, obj) else [*self.change_fields]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """On the page that adds a row every field of `add_fields` can be filled in, also a read-only one."""
        if obj is None:
            return [name for name in self.readonly_fields if name not in self.add_fields]
        return list(self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        changed = [name for name in form.changed_data if name != "reason"]
        super().save_model(request, obj, form, change)
        if changed or not change:
            audit.record_sync(
                actor=request.user.get_username(),
                action=f"{self.opts.model_name}.{'change' if change else 'add'}",
                target=f"{self.opts.verbose_name} {obj}",
                tenant_id=self.tenant_of(obj),
                reason=form.cleaned_data["reason"],
                detail={name: _change(form, name) for name in changed},
            )


def _change(form: Any, name: str) -> list[Any] | str:
    """Old and new value of a field; of a structure, which may hold secrets, only that it changed."""
    pair = [form.initial.get(name), form.cleaned_data.get(name)]
    if any(isinstance(value, (dict, list)) for value in pair):
        return "changed"
    return redact([value if isinstance(value, (bool, int, type(None))) else str(value) for value in pair])
