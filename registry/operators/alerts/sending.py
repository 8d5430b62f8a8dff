"""Sends messages about alerts: e-mail and signed webhook. At least once: a receiver drops a `webhook-id` that it has had.

The guard against addresses inside (registry.http.ssrf) is for addresses that tenants enter; ALERT_WEBHOOK_URL is the operator's
own, and the receiver often is on a private network.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from django.conf import settings

from registry.data import clock
from registry.http import signatures
from registry.http.client import Client, HttpError
from registry.http.ssrf import parted
from registry.models import AlertMessage
from registry.telemetry import metrics
from registry.tenants import mail

log = logging.getLogger(__name__)

SEND_WITHIN = 15.0  # seconds for one attempt, whatever the channel
WAITS = (10, 30, 60, 120, 300, 600)  # seconds until the next attempt; the last one again and again
GIVE_UP_AFTER = timedelta(hours=24)  # since the message was made
READ_MOST = 16 * 1024  # bytes of an answer
LONGEST_ERROR = 300  # characters
HEADERS = {"Content-Type": "application/json", "User-Agent": "Registry-Alerts/1"}


async def attempt(message: AlertMessage) -> None:
    """Try once to send the message, and set its fields by the outcome; the caller stores them. Never raises, but is cancelled."""
    message.attempts += 1
    try:
        async with asyncio.timeout(SEND_WITHIN):
            error = await SEND[AlertMessage.Channel(message.channel)](message)
    except TimeoutError:
        error = f"no answer within {SEND_WITHIN:g} s"
    except Exception as unexpected:  # whatever it is, the next attempt may succeed
        log.exception("an alert's message was not sent", extra={"channel": message.channel})
        error = type(unexpected).__name__
    _settle(message, error, clock.now())


def _settle(message: AlertMessage, error: str, now: datetime) -> None:
    message.error, message.due_at = error[:LONGEST_ERROR], None
    if not error:
        message.sent_at, outcome = now, "sent"
    elif now - message.created_at >= GIVE_UP_AFTER:
        message.given_up_at, outcome = now, "given up"
    else:
        message.due_at, outcome = now + timedelta(seconds=WAITS[min(message.attempts, len(WAITS)) - 1]), "failed"
    metrics.ALERT_MESSAGES.labels(message.channel, outcome).inc()
    if error:
        said = {"channel": message.channel, "attempt": message.attempts, "outcome": outcome, "error": message.error}
        log.warning("an alert's message was not sent", extra=said)


async def _email(message: AlertMessage) -> str:
    """The error; empty once the mail server took it."""
    if not settings.ALERT_EMAIL:
        return "ALERT_EMAIL is not set"
    sent = await mail.send(settings.ALERT_EMAIL, message.subject, message.body)
    return "" if sent else "the mail server did not take it; the log says why"


async def _webhook(message: AlertMessage) -> str:
    if not settings.ALERT_WEBHOOK_URL:
        return "ALERT_WEBHOOK_URL is not set"
    at = clock.now()
    signed = signatures.headers([settings.ALERT_WEBHOOK_SECRET], message.message_id, at, message.body)
    try:
        origin, target = parted(settings.ALERT_WEBHOOK_URL, tls_only=False)
        async with Client(origin, connections=1, largest_body=READ_MOST, headers=HEADERS) as http:
            answer = await http.request("POST", target, message.body.encode(), limit=SEND_WITHIN, headers=signed)
    except (HttpError, OSError) as error:
        return str(error) or type(error).__name__
    return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


SEND = {AlertMessage.Channel.EMAIL: _email, AlertMessage.Channel.WEBHOOK: _webhook}
