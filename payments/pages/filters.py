"""Filters of the list of payments: read from its address, and written into the addresses of other pages of it.

The address holds every filter, so that a view is kept by copying it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.http import QueryDict
from django.urls import reverse

from payments.books.search import ATTENTION, LONGEST_TEXT, MOST_WORDS, ListSearch
from payments.money import CURRENCIES, LARGEST, exponent
from payments.states import SHOWN_LOOKS, UNCERTAIN, Reversal, Status, shown_as
from registry.data import clock
from registry.edge import typed_numbers
from registry.edge.entered import as_entered, last_moment, moment, parsed, zone
from registry.models import Tenant
from registry.tenants.time_zones import zone_of

FIELDS: Final = ("q", "status", "processor", "currency", "amount_from", "amount_to", "from", "to", "period", "zone")
TODAY: Final = "today"
PERIODS: Final = {
    "1h": ("last hour", timedelta(hours=1)),
    "24h": ("last 24 hours", timedelta(days=1)),
    "7d": ("last 7 days", timedelta(days=7)),
    "30d": ("last 30 days", timedelta(days=30)),
}
LONGEST_NAME = 63  # characters of a processor
# Views that people need often: label and filters.
VIEWS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("All", {}),
    ("Needs attention", {"status": ATTENTION}),
    ("Uncertain", {"status": UNCERTAIN.value}),
    ("Failed today", {"status": Status.FAILED.value, "period": TODAY}),
    ("Disputed", {"status": Reversal.DISPUTED.value}),
    ("Refunded", {"status": Reversal.REFUNDED.value}),
)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The limits of a list, both inclusive, and the zone in which they were entered."""

    since: datetime | None
    until: datetime | None
    zone: tzinfo


def form_of(
    list_name: str, entered: dict[str, str], errors: dict[str, str], times: TimeRange, states: dict[str, str]
) -> dict[str, Any]:
    """What the template of the form shows. `states`: words by value."""
    wanted = set_of(entered)
    return {
        "list": reverse(list_name),
        "entered": entered,
        "errors": errors,
        "times": times,
        "states": list(states.items()),
        "periods": {TODAY: "today", **{name: label for name, (label, _) in PERIODS.items()}},
        "filtered": bool(wanted or errors),
        "folded": len(set(wanted) - {"q", "zone"}),
    }


def set_of(entered: dict[str, str]) -> dict[str, str]:
    """The filters that are set; the zone only where it matters."""
    found = {name: value for name, value in entered.items() if value}
    if not ({"from", "to"} & set(found) or found.get("period") == TODAY):
        found.pop("zone", None)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFilters:
    """The filters of a request: as entered, what is wrong with them, and the search; None if something is wrong."""

    tenant: Tenant
    entered: dict[str, str]
    errors: dict[str, str]
    search: ListSearch | None
    times: TimeRange

    @property
    def wanted(self) -> dict[str, str]:
        return set_of(self.entered)

    @property
    def form(self) -> dict[str, Any]:
        states = {ATTENTION: "needs attention", **{state.value: state.label.lower() for state in SHOWN_LOOKS}}
        return form_of("payment_list", self.entered, self.errors, self.times, states)

    def address(self, name: str = "payment_list", **more: str) -> str:
        """A page with these filters."""
        return f"{reverse(name)}?{urlencode({'tenant': self.tenant.slug, **self.wanted, **more})}"

    @property
    def views(self) -> list[dict[str, Any]]:
        """The common views, as links."""
        mine = {name: value for name, value in self.wanted.items() if name != "zone"}
        return [
            {
                "label": label,
                "address": f"{reverse('payment_list')}?{urlencode({'tenant': self.tenant.slug, **filters})}",
                "current": mine == filters and not self.errors,
                "zoned": TODAY in filters.values(),
            }
            for label, filters in VIEWS
        ]

    @property
    def for_browser(self) -> dict[str, Any]:
        """What the page itself can check of a change, and whether the server has to check more."""
        search = self.search or ListSearch()
        certain = search.state if search.state != ATTENTION else ""
        limits = {"since": search.since, "until": search.until, "least": search.least, "largest": search.largest}
        return {
            **{name: value for name, value in limits.items() if value is not None},
            "status": certain,
            "processor": search.processor,
            "currency": search.currency,
            "more": bool(search.text or search.state == ATTENTION),
            "nothing": self.search is None,
        }


def read(query: QueryDict, tenant: Tenant) -> ListFilters:
    """The filters of this address. Invalid ones are explained in `errors`."""
    entered = {name: query.get(name, "").strip() for name in FIELDS}
    entered["q"] = entered["q"] or query.get("id", "").strip()
    errors: dict[str, str] = {}
    times = read_times(entered, errors, tenant)
    search = ListSearch(
        text=read_text(entered["q"], errors),
        state=parsed(_state, entered["status"], "status", "is not a state", errors) or "",
        processor=parsed(_name, entered["processor"], "processor", "is not a name of a processor", errors) or "",
        currency=parsed(_currency, entered["currency"], "currency", "is not a currency such as BRL", errors) or "",
        home_currency=tenant.currency,
        since=times.since,
        until=times.until,
    )
    least, largest = (_amount(entered[name], name, search, errors) for name in ("amount_from", "amount_to"))
    if least is not None and largest is not None and least > largest:
        errors["amount_to"] = "This amount is smaller than the one it should start from."
    search = replace(search, least=least, largest=largest)
    return ListFilters(tenant=tenant, entered=entered, errors=errors, search=None if errors else search, times=times)


def read_times(entered: dict[str, str], errors: dict[str, str], tenant: Tenant) -> TimeRange:
    """The limits of `from`, `to` and `period` in `zone`, by default the tenant's. The first two are then in the format of the browser's field."""
    of = parsed(zone, entered["zone"], "zone", "is not a time zone", errors) or zone_of(tenant)
    since = parsed(lambda text: moment(text, of), entered["from"], "from", "is not a date and time", errors)
    until = parsed(lambda text: last_moment(text, of), entered["to"], "to", "is not a date and time", errors)
    start = parsed(lambda text: _start(text, of), entered["period"], "period", "is not a period", errors)
    if since and until and since > until:
        errors["to"] = "This is before the start."
    for name in ("from", "to"):  # a value that the field cannot show is in the error
        entered[name] = "" if name in errors else _shown(entered[name], name, of)
    return TimeRange(max(filter(None, (since, start)), default=None), until, of)


def read_text(text: str, errors: dict[str, str]) -> str:
    """The searched text, if it can be searched."""
    if len(text) > LONGEST_TEXT:
        errors["q"] = f"A search has at most {LONGEST_TEXT} characters."
    elif len(text.split()) > MOST_WORDS:
        errors["q"] = f"A search has at most {MOST_WORDS} words."
    elif "\0" in text:
        errors["q"] = "A search cannot contain this character."
    return text


def _state(text: str) -> str:
    return text if text == ATTENTION else shown_as(text).value


def _name(text: str) -> str:
    if "\0" in text or len(text) > LONGEST_NAME:
        raise ValueError(text)
    return text


def _currency(text: str) -> str:
    if text.upper() not in CURRENCIES:
        raise ValueError(text)
    return text.upper()


def _amount(text: str, name: str, search: ListSearch, errors: dict[str, str]) -> Decimal | None:
    currency = search.currency or search.home_currency
    try:
        amount = typed_numbers.read(text, decimals=exponent(currency)) if text else None
    except typed_numbers.Unclear as error:
        errors[name] = f"An amount {error}."
        return None
    if amount is not None and amount < 0:
        errors[name] = "An amount cannot be negative."
    if amount is not None and amount > LARGEST:
        errors[name] = f"An amount must be at most {LARGEST}."
    return amount


def _start(period: str, in_zone: tzinfo) -> datetime:
    now = clock.now().astimezone(in_zone)
    if period == TODAY:
        return now.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    if period not in PERIODS:
        raise ValueError(period)
    return (now - PERIODS[period][1]).astimezone(UTC)


def _shown(text: str, name: str, in_zone: tzinfo) -> str:
    if name == "to" and text:
        last = last_moment(text, in_zone)
        if last.microsecond == 999_999:  # of a day or a minute
            return last.astimezone(in_zone).replace(tzinfo=None).isoformat(timespec="minutes")
    return as_entered(text, in_zone)


def ids(texts: list[str], most: int) -> list[UUID]:
    """Ids of payments. Raises ValueError."""
    if len(texts) > most:
        raise ValueError(f"at most {most} ids")
    return [UUID(text) for text in texts]
