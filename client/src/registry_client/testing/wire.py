"""Requests and responses of the test double: routing, bodies, problem details."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import msgspec

type Json = dict[str, Any]
type Answer = httpx2.Response | None  # None: nothing to say yet, the caller may wait

_encoder = msgspec.json.Encoder(decimal_format="number")


class Refused(Exception):
    """A request that the service refuses with problem details."""

    def __init__(
        self, status: int, kind: str, detail: str = "", errors: list[Json] | None = None, **headers: str
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.errors = status, kind, detail, errors
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def invalid(field: str, message: str) -> Refused:
    return all_invalid({field: message})


def all_invalid(faults: dict[str, str]) -> Refused:
    """The refusal that names these fields."""
    errors = [{"field": field, "message": message} for field, message in faults.items()]
    return Refused(422, "invalid", "Some fields are not acceptable.", errors)


class Asked:
    """A request as the double reads it."""

    def __init__(self, request: httpx2.Request, path: str) -> None:
        self.headers, self.query, self.path = request.headers, request.url.params, path
        self._content = request.content
        self.last = True  # whether a long poll that has nothing to say must answer now

    @property
    def body(self) -> Json:
        try:
            found = msgspec.json.decode(self._content, type=Json)
        except msgspec.ValidationError as error:
            raise invalid("", str(error)) from None
        except msgspec.DecodeError as error:
            raise Refused(400, "malformed", str(error)) from None
        return {name: value for name, value in found.items() if value is not None}

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name) or default)

    def time(self, name: str) -> datetime | None:
        text = self.query.get(name)
        return datetime.fromisoformat(text).astimezone(UTC) if text else None


def answer(data: Any, status: int = 200, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, content=_encoder.encode(data), headers={"Content-Type": "application/json", **named})


def page(asked: Asked, items: list[Json]) -> httpx2.Response:
    """The page of a list that a request asks for; a cursor is the number of items before it."""
    start, limit = asked.number("cursor", 0), asked.number("limit", 50)
    following = str(start + limit) if start + limit < len(items) else None
    return answer({"items": items[start : start + limit], "next": following, "total": len(items)})


def problem(refused: Refused) -> httpx2.Response:
    body: Json = {
        "type": f"urn:registry:problem:{refused.kind}",
        "title": refused.kind.replace("-", " "),
        "status": refused.status,
        "detail": refused.detail,
    }
    if refused.errors:
        body["errors"] = refused.errors
    content = msgspec.json.encode(body)
    headers = {"Content-Type": "application/problem+json", **refused.headers}
    return httpx2.Response(refused.status, content=content, headers=headers)


class Routes:
    """Views by method and path; `{name}` in a path is passed to the view."""

    def __init__(self) -> None:
        self._views: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []

    def add(self, method: str, path: str, view: Callable[..., Answer]) -> None:
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        self._views.append((method, pattern, view))

    def call(self, method: str, asked: Asked) -> Answer:
        for wanted, pattern, view in self._views:
            if wanted == method and (found := pattern.fullmatch(asked.path)):
                return view(asked, **found.groupdict())
        raise Refused(404, "not-found", "There is no such thing here.")


# -- Values --------------------------------------------------------------------------------------------------------


def now() -> datetime:
    return datetime.now(UTC)


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


DECIMALS = {"JPY": 0, "KRW": 0, "CLP": 0, "PYG": 0, "VND": 0, "BHD": 3, "JOD": 3, "KWD": 3, "OMR": 3, "TND": 3}


def money(value: Any, currency: str) -> Decimal:
    """The amount of a request in the currency's format. Raises Refused (422)."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise invalid("amount", "must be a number, or a text such as 19.90")
    if not re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", str(value)):
        raise invalid("amount", "must be a number, or a text such as 19.90")
    step = Decimal(1).scaleb(-DECIMALS.get(currency, 2))
    amount = Decimal(str(value))
    if amount <= 0:
        raise invalid("amount", "must be greater than zero")
    if amount != amount.quantize(step):
        raise invalid("amount", f"{currency} has {DECIMALS.get(currency, 2)} decimals, no more")
    return amount.quantize(step)
