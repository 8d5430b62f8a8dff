"""Alerts, their silences and messages, and who evaluates them. registry.operators.alerts reads and writes all of them."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

OPEN = models.Q(resolved_at=None)
TO_BE_TOLD = models.Q(told_at__isnull=False, told_resolved_at=None)  # that it is resolved


class Alert(AsyncModelMixin, models.Model):
    """A time for which the condition of an alert rule held. Resolved ones are kept for 90 days."""

    class Status(models.TextChoices):
        PENDING = "pending"  # the condition holds, and not yet for as long as the rule says
        FIRING = "firing"
        RESOLVED = "resolved"

    id = models.UUIDField(primary_key=True, editable=False)
    rule = models.CharField(max_length=60)
    host = models.CharField(max_length=255, blank=True, help_text="empty: the service")
    status = models.CharField(max_length=10, choices=Status)
    severity = models.SmallIntegerField(help_text="registry.operators.attention.Severity")
    sentence = models.CharField(max_length=500, help_text="of the rule, when it last held")
    since = models.DateTimeField(help_text="from then on the condition held")
    fired_at = models.DateTimeField(null=True)
    clear_since = models.DateTimeField(null=True, help_text="from then on the condition of a firing alert did not hold")
    resolved_at = models.DateTimeField(null=True)
    value = models.FloatField(null=True, help_text="the last one for which the condition held")
    samples = models.JSONField(default=list, help_text="the first samples that violate the rule: labels and value")
    read_at = models.DateTimeField(help_text="when its metric was last read, to half a minute")
    told_at = models.DateTimeField(null=True, help_text="when a message said that it fires")
    told_resolved_at = models.DateTimeField(null=True, help_text="when a message said that it is resolved")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "host"], condition=OPEN, name="one_open_alert_of_a_rule")
        ]
        indexes = [models.Index(fields=["host"], condition=OPEN | TO_BE_TOLD, name="alert_followed")]

    def __str__(self) -> str:
        return f"{self.rule} on {self.host}" if self.host else self.rule


class AlertSilence(AsyncModelMixin, models.Model):
    """A time in which the alerts of a rule send no message. An operator makes it, for a reason."""

    rule = models.CharField(max_length=60)
    host = models.CharField(max_length=255, blank=True, help_text="empty: the service and every host")
    starts_at = models.DateTimeField(db_default=Now(), editable=False)
    ends_at = models.DateTimeField(help_text="UTC; what still fires then is sent then")
    actor = models.CharField(max_length=150, editable=False)
    why = models.TextField(editable=False)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-id"]
        verbose_name = "silence of an alert"
        verbose_name_plural = "silences of alerts"

    def __str__(self) -> str:
        return f"{self.rule} on {self.host}" if self.host else self.rule


class AlertMessage(AsyncModelMixin, models.Model):
    """A message about alerts that changed, in one channel. Kept for 30 days."""

    class Channel(models.TextChoices):
        EMAIL = "email"
        WEBHOOK = "webhook"

    message_id = models.CharField(max_length=40, help_text="the same in every channel and at every attempt")
    channel = models.CharField(max_length=10, choices=Channel)
    subject = models.CharField(max_length=200)
    body = models.TextField(help_text="the text of the e-mail, or the JSON that is signed")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True, help_text="of the next attempt; empty: sent, or given up")
    attempts = models.SmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True, help_text="of the last attempt")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-id"]
        verbose_name = "message of an alert"
        verbose_name_plural = "messages of alerts"
        constraints = [models.UniqueConstraint(fields=["message_id", "channel"], name="one_alert_message_per_channel")]
        indexes = [models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="alert_message_due")]

    def __str__(self) -> str:
        return f"{self.channel}: {self.subject}"


class AlertWatch(AsyncModelMixin, models.Model):
    """Who evaluates the rules of the service or of a host, and which of them cannot be evaluated."""

    host = models.CharField(max_length=255, primary_key=True, help_text="empty: the rules of the service")
    evaluator = models.CharField(max_length=300)
    at = models.DateTimeField(help_text="of the last evaluation, to half a minute")
    unknown = models.JSONField(default=dict, help_text="rules whose metric cannot be read, and since when")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    def __str__(self) -> str:
        return self.host or "the service"
