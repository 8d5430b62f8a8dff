"""Template filters for plans and bills."""

from datetime import datetime

from babel.dates import format_date
from babel.numbers import format_currency
from django import template

from payments.models import Plan
from payments.money import decimal_text
from payments.templatetags.payments import share

register = template.Library()
register.filters["share"] = share


@register.filter
def units(amount: int, currency: str) -> str:
    """1990 and "BRL" as R$19.90."""
    return format_currency(decimal_text(amount, currency), currency, locale="en")


@register.filter
def price(plan: Plan) -> str:
    """A plan's price in words."""
    return f"{units(plan.price, plan.currency)} a month" if plan.price else "Free"


@register.filter
def day(moment: datetime) -> str:
    return format_date(moment, "d MMMM y", locale="en")
