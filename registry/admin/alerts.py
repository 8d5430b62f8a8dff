"""Operators' pages of alerts, their silences and their messages. Superusers only: they are about the service itself."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from registry.data import clock
from registry.models import Alert, AlertMessage, AlertSilence
from registry.operators.alerts import rules, states
from registry.operators.alerts.expressions import shown
from registry.operators.alerts.messages import labels
from registry.operators.alerts.operate import END_SILENCES, LONGEST, SILENCE_DAY, SILENCE_HOUR
from registry.operators.attention import Severity
from registry.operators.cells import breakable, exact, pill, since_then
from registry.operators.lists import Attaching, CappedPaginator, choices_of, since
from registry.operators.reasoned import Reasoned, ReasonedForm
from registry.operators.scope import SUPERUSERS, TenantScoped
from registry.operators.sections import WATCH

LOOKS = {
    Alert.Status.PENDING: ("◔", "amber", "pending"),
    Alert.Status.FIRING: ("✕", "red", "firing"),
    Alert.Status.RESOLVED: ("●", "green", "resolved"),
}
OpenFilter = choices_of(
    "state",
    {"open": ("pending or firing", Q(resolved_at=None)), "resolved": ("resolved", Q(resolved_at__isnull=False))},
)


@admin.register(Alert)
class AlertAdmin(Attaching):
    section, place, purpose = WATCH, 1, "What fires, and what fired: silence one."
    tenant_path = ""
    paginator = CappedPaginator
    list_display = ["rule_name", "state", "urgency", "sentence", "measured", "began", "ended", "silenced"]
    list_filter = [OpenFilter, since("since", "since")]
    search_fields = ["rule__startswith", "host__exact"]
    search_help_text = "The beginning of a rule's name, or a host in full."
    sortable_by = ()
    fields = (
        "rule_name", "state", "urgency", "sentence", "expression", "measured", "parts", "began", "fired", "clear", "ended", "read",
        "told", "told_resolved", "silenced",
    )  # fmt: skip
    readonly_fields = fields
    actions = [SILENCE_HOUR, SILENCE_DAY]

    @admin.display(description="rule")
    def rule_name(self, alert: Alert) -> SafeString:
        return breakable(alert)

    @admin.display(description="state")
    def state(self, alert: Alert) -> SafeString:
        if states.is_unknown(alert, clock.now()):
            return pill("?", "violet", f"{alert.status}, now unknown")
        return pill(*LOOKS[Alert.Status(alert.status)])

    @admin.display(description="severity")
    def urgency(self, alert: Alert) -> str:
        return Severity(alert.severity).name.lower()

    @admin.display(description="value")
    def measured(self, alert: Alert) -> str:
        return "–" if alert.value is None else shown(alert.value)

    @admin.display(description="expression")
    def expression(self, alert: Alert) -> str:
        rule = rules.rule_of(alert.rule)
        return f"{rule.condition}, for {rule.for_} s" if rule else "the rule was removed"

    @admin.display(description="samples that violate it")
    def parts(self, alert: Alert) -> SafeString | str:
        lines = ((f"{shown(one['value'])} {labels(one['labels'])}",) for one in alert.samples)
        return format_html_join("", "<div>{}</div>", lines) or "–"

    @admin.display(description="since")
    def began(self, alert: Alert) -> SafeString | str:
        return since_then(alert.since) if alert.resolved_at is None else exact(alert.since)

    @admin.display(description="fired")
    def fired(self, alert: Alert) -> SafeString | str:
        return exact(alert.fired_at)

    @admin.display(description="not violated since")
    def clear(self, alert: Alert) -> SafeString | str:
        return exact(alert.clear_since)

    @admin.display(description="resolved")
    def ended(self, alert: Alert) -> SafeString | str:
        return exact(alert.resolved_at)

    @admin.display(description="metric last read")
    def read(self, alert: Alert) -> SafeString | str:
        return exact(alert.read_at)

    @admin.display(description="told that it fires")
    def told(self, alert: Alert) -> SafeString | str:
        return exact(alert.told_at)

    @admin.display(description="told that it is resolved")
    def told_resolved(self, alert: Alert) -> SafeString | str:
        return exact(alert.told_resolved_at)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Alert | None:
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            self.attach([found])
        return found

    def attach(self, rows: list[Any]) -> None:
        """The silences that hold now."""
        now = clock.now()
        silences = list(AlertSilence.objects.filter(ends_at__gt=now))
        for alert in rows:
            alert.silence = None if alert.resolved_at else states.silence_of(alert, silences, now)

    @admin.display(description="silenced")
    def silenced(self, alert: Any) -> str:
        one = alert.silence
        return f"until {one.ends_at:%Y-%m-%d %H:%M:%S} UTC by {one.actor}: {one.why}" if one else "–"


class AlertSilenceForm(ReasonedForm):
    rule = forms.ChoiceField(choices=lambda: [(one.name, one.name) for one in rules.rules()])

    def clean_ends_at(self) -> datetime:
        ends_at: datetime = self.cleaned_data["ends_at"]
        now = clock.now()
        if not now < ends_at <= now + LONGEST:
            raise forms.ValidationError(f"A time in the future, at most {LONGEST.days} days from now (UTC).")
        return ends_at


@admin.register(AlertSilence)
class AlertSilenceAdmin(Reasoned):
    section, place, purpose = WATCH, 2, "Rules that send nothing for a time: add one, end one."
    form = AlertSilenceForm
    tenant_path = ""
    add_roles = act_roles = SUPERUSERS
    list_display = ["rule", "on_host", "state", "starts", "ends", "actor", "why"]
    list_filter = [since("starts_at", "started")]
    search_fields = ["rule__startswith", "host__exact"]
    search_help_text = "The beginning of a rule's name, or a host in full."
    sortable_by = ()
    add_fields = ("rule", "host", "ends_at")
    change_fields = ("rule", "on_host", "state", "starts", "ends", "actor", "why")
    readonly_fields = change_fields
    actions = [END_SILENCES]

    def tenant_of(self, obj: Any) -> None:
        return None

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.actor, obj.why = request.user.get_username(), form.cleaned_data["reason"]
        super().save_model(request, obj, form, change)

    @admin.display(description="host")
    def on_host(self, silence: AlertSilence) -> str:
        return silence.host or "all"

    @admin.display(description="state")
    def state(self, silence: AlertSilence) -> SafeString:
        is_active = silence.ends_at > clock.now()
        return pill("◔", "amber", "active") if is_active else pill("–", "grey", "ended")

    @admin.display(description="from")
    def starts(self, silence: AlertSilence) -> SafeString | str:
        return exact(silence.starts_at)

    @admin.display(description="until")
    def ends(self, silence: AlertSilence) -> SafeString | str:
        return exact(silence.ends_at)


DeliveryFilter = choices_of(
    "state",
    {
        "sent": ("sent", Q(sent_at__isnull=False)),
        "waits": ("waits", Q(due_at__isnull=False)),
        "late": ("waits after a failure", Q(due_at__gt=Now(), attempts__gt=0)),
        "stopped": ("stopped", Q(given_up_at__isnull=False)),
    },
)


@admin.register(AlertMessage)
class AlertMessageAdmin(TenantScoped):
    section, place, purpose = WATCH, 3, "What was sent about alerts, and what did not arrive."
    tenant_path = ""
    paginator = CappedPaginator
    list_display = ["subject", "channel", "state", "made", "attempts", "error"]
    list_filter = [DeliveryFilter, "channel"]
    search_fields = ["message_id__exact"]
    search_help_text = "The id of a message in full."
    sortable_by = ()
    fields = (
        "subject",
        "channel",
        "message_id",
        "state",
        "made",
        "sent",
        "attempts",
        "due",
        "given_up",
        "error",
        "body",
    )
    readonly_fields = fields
    actions = None

    @admin.display(description="state")
    def state(self, message: AlertMessage) -> SafeString:
        if message.sent_at:
            return pill("●", "green", "sent")
        if message.given_up_at:
            return pill("✕", "red", "not delivered")
        return pill("◔", "amber", "waits")

    @admin.display(description="made")
    def made(self, message: AlertMessage) -> SafeString | str:
        return exact(message.created_at)

    @admin.display(description="sent")
    def sent(self, message: AlertMessage) -> SafeString | str:
        return exact(message.sent_at)

    @admin.display(description="next attempt")
    def due(self, message: AlertMessage) -> SafeString | str:
        return exact(message.due_at)

    @admin.display(description="stopped trying")
    def given_up(self, message: AlertMessage) -> SafeString | str:
        return exact(message.given_up_at)
