"""Cells of admin lists and pages: links, states, times, shortened ids, texts that may break."""

import re
from datetime import UTC, datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.db import models
from django.urls import reverse
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from registry.data import clock


def link_to(model: type[models.Model], pk: Any, text: Any) -> SafeString:
    """A link to the row's page in the admin."""
    return format_html('<a href="{}">{}</a>', reverse(_name(model, "change"), args=[quote(pk)]), text)


def link_to_list(model: type[models.Model], text: Any, **filters: Any) -> SafeString:
    """A link to the list of `model`, filtered."""
    return format_html('<a href="{}">{}</a>', address_of_list(model, **filters), text)


def address_of_list(model: type[models.Model], **filters: Any) -> str:
    """The address of the list of `model` in the admin, filtered."""
    return reverse(_name(model, "changelist"), query=filters)


def _name(model: type[models.Model], page: str) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"


def pill(shape: str, colour: str, word: str) -> SafeString:
    """A state as word, colour and shape: never colour alone."""
    return format_html('<span class="pill pill-{}"><span aria-hidden="true">{}</span> {}</span>', colour, shape, word)


def exact(moment: datetime | None) -> SafeString | str:
    """To the second and in UTC in the cell, to the millisecond in its title."""
    if moment is None:
        return "–"
    text = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    machine = f"{text[:-3]}Z".replace(" ", "T")
    cell = '<time class="figure" datetime="{}" title="{} UTC">{} UTC</time>'
    return format_html(cell, machine, text[:-3], text[:-7])


def shortened(identifier: Any) -> SafeString:
    """An id cut in the middle, whole in its title."""
    text = str(identifier)
    return format_html('<span class="figure" title="{}">{}…{}</span>', text, text[:8], text[-4:])


def breakable(text: Any) -> SafeString:
    """A name without spaces, such as an address or a type of event, with places where its line may break."""
    return mark_safe(re.sub(r"([._/:@?&=-]+)(?=\w)", r"\1<wbr>", conditional_escape(text)))


def since_then(moment: datetime | None) -> SafeString | str:
    """A time, and how long ago that was."""
    if moment is None:
        return "–"
    return format_html("{} · {}", exact(moment), ago((clock.now() - moment).total_seconds()))


def ago(seconds: float) -> str:
    """A length of time in its largest unit: 3 min."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
