"""Query parameters: one declaration per route reads them from a request and describes them in the OpenAPI document."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest

from registry.errors import Invalid, Problem

UNKNOWN_NAMED = 20  # unknown parameters named in one answer: an answer must not become larger than its request
LONGEST_NUMBER = 18  # digits that are read; any number of 18 digits fits a bigint

type Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter[T]:
    """One kind of query parameter."""

    schema: Schema
    read: Callable[[str, str], T]  # from its name and its text, which is never empty; raises a Problem
    default: T  # where the request has no such parameter, or an empty one

    def saying(self, description: str) -> "Parameter[T]":
        """The same parameter with another description in the OpenAPI document."""
        return replace(self, schema={**self.schema, "description": description})


type Parameters = Mapping[str, Parameter[Any]]


def invalid(name: str, message: str) -> Invalid:
    """The refusal (422) of one query parameter."""
    return Invalid(errors=[{"field": name, "message": message}])


# -- Kinds of parameters -------------------------------------------------------------------------------------


def _storable(name: str, text: str) -> str:
    if "\0" in text:
        raise invalid(name, "contains NUL")
    return text


TEXT = Parameter[str | None]({"type": "string"}, lambda _name, text: text, None)
WORD = Parameter[str | None]({"type": "string"}, _storable, None)  # a text that is compared with stored ones


_EXTENDED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_time(text: str) -> datetime:
    """An ISO 8601 time in UTC, in any format of that standard; it is UTC where the text has no zone. Raises ValueError."""
    # A "+" that was not percent-encoded arrives as a space; RFC 3339 allows small letters.
    at = datetime.fromisoformat(text.replace(" ", "+").upper())
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:  # the first or last hours of the calendar, in another zone
        raise ValueError(text) from error


def parse_extended_time(text: str) -> datetime:
    """As parse_time, but its date must be YYYY-MM-DD: 20250715 and 2025-W29-2 may be typing errors. Raises ValueError."""
    if not _EXTENDED.match(text):
        raise ValueError(text)
    return parse_time(text)


def _time(parse: Callable[[str], datetime]) -> Parameter[datetime | None]:
    def read(name: str, text: str) -> datetime:
        try:
            return parse(text)
        except ValueError:
            raise invalid(name, "wants an ISO 8601 time such as 2026-01-02T03:04:05Z") from None

    schema: Schema = {
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
        "description": "ISO 8601; UTC where it names no zone, and a date alone is its midnight",
    }
    return Parameter(schema, read, None)


TIME, EXTENDED_TIME = _time(parse_time), _time(parse_extended_time)
WHEN: Parameters = {"from": TIME, "to": TIME}
EXTENDED_WHEN: Parameters = {"from": EXTENDED_TIME, "to": EXTENDED_TIME}


def choice(
    *words: str, default: str | None = None, message: str = "", error: Callable[[str, str], Problem] = invalid
) -> Parameter[str | None]:
    """One of `words`. `message` and `error` say what another word is refused with."""

    def read(name: str, text: str) -> str:
        if text not in words:
            raise error(name, message or f"wants one of {', '.join(words)}")
        return text

    schema = {"type": "string", "enum": list(words), **({"default": default} if default else {})}
    return Parameter(schema, read, default)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("0", "1", "false", "true"):
        raise invalid(name, "wants true or false")
    return text.lower() in ("1", "true")


def flag(description: str = "", *, default: bool = False) -> Parameter[bool]:
    """True or false, in any case, or 1 or 0."""
    schema: Schema = {"anyOf": [{"type": "boolean"}, {"enum": ["1", "0"]}], "default": default}
    return Parameter(schema | ({"description": description} if description else {}), _flag, default)


def whole(default: int, *, least: int = 0, most: int | None = None, capped: int | None = None) -> Parameter[int]:
    """A whole number. A number above `most` is refused; a number above `capped` counts as `capped`."""
    wants = f"wants a whole number {f'of at least {least}' if most is None else f'from {least} to {most}'}"
    highest = 10**LONGEST_NUMBER if capped is None else capped

    def read(name: str, text: str) -> int:
        digits = text.isascii() and text.isdecimal()
        number = min(int(text[:LONGEST_NUMBER]), highest) if digits else -1
        if number < least or (most is not None and (number > most or len(text) > LONGEST_NUMBER)):
            raise invalid(name, wants)
        return number

    schema: Schema = {"type": "integer", "minimum": least, "default": default}
    if most is not None:
        schema["maximum"] = most
    if capped is not None:
        schema["description"] = f"more than {capped} counts as {capped}"
    return Parameter(schema, read, default)


# -- Pages ---------------------------------------------------------------------------------------------------


def cursor_page(limit: int, *, most: int) -> Parameters:
    """The parameters of a page that ends with a cursor to the next one."""
    return {"limit": whole(limit, least=1, most=most), "cursor": TEXT.saying("`next` of a page")}


def offset_page(limit: int, *, most: int, furthest: int) -> Parameters:
    """The parameters of a page that begins after `offset` items; larger numbers count as the largest."""
    return {"limit": whole(limit, least=1, capped=most), "offset": whole(0, capped=furthest)}


LONGEST_WAIT = 30  # seconds that a request may be held
LONG_POLL: Parameters = {
    "after": whole(0, most=2**31 - 1),
    "wait": whole(20, most=LONGEST_WAIT).saying("seconds"),
}


# -- The declaration of a route --------------------------------------------------------------------------------


class Values:
    """The parameters of one request. Each is checked when it is looked up, so a view decides which fault is named first."""

    __slots__ = ("_declared", "_given")

    def __init__(self, declared: Parameters, given: Mapping[str, str]) -> None:
        self._declared, self._given = declared, given

    def __getitem__(self, name: str) -> Any:
        parameter = self._declared[name]
        text = self._given.get(name)
        return parameter.read(name, text) if text else parameter.default


class Query:
    """The query parameters of a route.

    `needed` ones must be there, of `one_of` at least one: the view refuses requests without them, the document says so.
    Other parameters are ignored, or refused where the query is `strict`.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        needed: tuple[str, ...] = (),
        one_of: tuple[str, ...] = (),
        strict: bool = False,
    ) -> None:
        self.parameters, self.needed, self.one_of, self.strict = parameters, needed, one_of, strict

    def read(self, request: HttpRequest) -> Values:
        """The values of a request. Raises Invalid (422) naming unknown parameters, of a strict query."""
        if self.strict:
            self._refuse_unknown(request)
        return Values(self.parameters, request.GET)  # type: ignore[arg-type]  # a QueryDict gives the last value

    def _refuse_unknown(self, request: HttpRequest) -> None:
        if unknown := [name for name in request.GET if name not in self.parameters][:UNKNOWN_NAMED]:
            message = f"unknown; allowed: {', '.join(self.parameters)}"
            raise Invalid(errors=[{"field": name[:100], "message": message} for name in unknown])

    def describe(self) -> list[dict[str, Any]]:
        """The parameter objects of the OpenAPI document."""
        return [self._described(name, {**parameter.schema}) for name, parameter in self.parameters.items()]

    def _described(self, name: str, schema: Schema) -> dict[str, Any]:
        needed = name in self.needed
        texts = [schema.pop("description", "")]
        if name in self.one_of:  # OpenAPI has no word for that
            texts.append(f"one of {' and '.join(self.one_of)} is required")
        text = "; ".join(filter(None, texts))
        return {
            "name": name,
            "in": "query",
            "required": needed,
            **({"description": text} if text else {}),
            "schema": {**schema, "minLength": 1} if needed else _or_empty(schema),
        }


def _or_empty(schema: Schema) -> Schema:
    """The schema of an optional parameter: an empty one is as if it were missing."""
    if schema.get("type") == "string" and "enum" not in schema:
        return schema  # it allows an empty text already
    default = {"default": schema["default"]} if "default" in schema else {}
    bare = {name: value for name, value in schema.items() if name != "default"}
    return {"anyOf": [*bare.get("anyOf", [bare]), {"const": ""}], **default}
