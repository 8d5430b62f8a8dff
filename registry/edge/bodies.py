"""JSON bodies of requests, decoded into structs. A refusal names every field that is at fault, not only the first."""

import json
import re
from collections.abc import Sequence
from enum import Enum
from itertools import islice
from typing import Annotated, Any, Literal, TypeAliasType, get_args, get_origin

import msgspec
from django.http import HttpRequest

from registry.edge import nulls
from registry.errors import Invalid, Malformed, UnsupportedMediaType

FAULTS_NAMED = 20  # unknown fields named in one answer: an answer must not become larger than its request


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Malformed(f"the field {twice[:50]!r} stands twice in one object")
    return fields


_duplicate_check = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def read[S: msgspec.Struct](request: HttpRequest, decoder: "msgspec.json.Decoder[S]", *, nul: bool = False) -> S:
    """The request's body as a struct. Raises UnsupportedMediaType (415), Malformed (400), Invalid (422, all fields).

    `nul`: texts may contain NUL, because the caller checks for it.
    """
    kind = request.META.get("CONTENT_TYPE", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType
    body = request.body
    try:
        # JSON readers differ in which of two fields with one name counts, so both are refused.
        data = _duplicate_check.decode(body.decode())
        if not nul:
            refuse_nul(body, data)
        return nulls.decode(decoder, body)
    except msgspec.ValidationError as error:
        raise invalid(data, decoder, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Malformed(f"not JSON: {str(error)[:200] or 'nested too deeply'}") from None


def refuse_nul(body: bytes, data: Any = None) -> None:
    """Raises Invalid (422) naming the fields whose texts contain NUL, which PostgreSQL cannot store."""
    if b"\\u0000" not in body:
        return
    data = json.loads(body) if data is None else data
    fields = data.items() if isinstance(data, dict) else [("body", data)]
    faults = [{"field": name[:100], "message": "contains NUL"} for name, value in fields if _has_nul([name, value])]
    if faults:
        raise Invalid("a text contains the character NUL, which cannot be stored", errors=faults)


def _has_nul(data: Any) -> bool:
    if isinstance(data, dict):
        return any(_has_nul([name, value]) for name, value in data.items())
    if isinstance(data, list):
        return any(map(_has_nul, data))
    return isinstance(data, str) and "\0" in data


def invalid(data: Any, decoder: msgspec.json.Decoder, error: msgspec.ValidationError) -> Invalid:
    """The refusal with every field's fault: each field is converted on its own once the whole has failed."""
    faults = field_faults(data, decoder) or [{"field": "body", "message": str(error)}]
    return Invalid("some fields are not acceptable", errors=faults)


_JSON_NAMES: dict[type, str] = {type(None): "null", list: "an array", str: "a text", bool: "a boolean"}


def field_faults(data: Any, decoder: msgspec.json.Decoder) -> list[dict[str, str]]:
    if not isinstance(data, dict):
        return [{"field": "body", "message": f"wants an object, got {_JSON_NAMES.get(type(data), 'a number')}"}]
    fields = {field.encode_name: field for field in msgspec.structs.fields(decoder.type)}
    faults = [
        {"field": str(name)[:100], "message": f"unknown field; allowed: {', '.join(fields)}"}
        for name in islice((name for name in data if name not in fields), FAULTS_NAMED)
    ]
    for name, field in fields.items():
        if name not in data:
            if field.required:
                faults.append({"field": name, "message": "is required"})
            continue
        if data[name] is None and not field.required:
            continue
        try:
            msgspec.convert(data[name], _without_raw(field.type), strict=True, dec_hook=decoder.dec_hook)
        except (msgspec.ValidationError, ValueError) as fault:
            faults.append({"field": name, "message": worded(str(fault), field.type)})
    return faults


_BOUND = re.compile(r"Expected `(int|float)` (<=|>=|<|>) (\S+)")
_BOUNDS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}
_NUMBERS = {"int": "a whole number", "float": "a number"}
_EXAMPLES = {
    "Invalid RFC3339 encoded date": "wants a date such as 2026-01-31",
    "Invalid RFC3339 encoded datetime": "wants a time such as 2026-01-31T12:00:00Z",
    "Expected `datetime` with a timezone component": "wants a time with its zone, such as 2026-01-31T12:00:00Z",
}


def worded(fault: str, kind: Any) -> str:
    """A fault of msgspec in words that say what is allowed, for a field of this type."""
    if fault in _EXAMPLES:
        return _EXAMPLES[fault]
    if found := _BOUND.fullmatch(fault):
        number, bound, limit = found.groups()
        return f"wants {_NUMBERS[number]} {_BOUNDS[bound]} {limit.removesuffix('.0')}"
    if fault.startswith("Invalid enum value ") and " - at " not in fault and (allowed := _choices(kind)):
        return f"wants one of {', '.join(allowed)}, not {fault.removeprefix('Invalid enum value ')}"
    return fault


def _choices(kind: Any) -> list[str]:
    """The values of the literals and enumerations that a type is made of."""
    if isinstance(kind, TypeAliasType):
        return _choices(kind.__value__)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(one.value) for one in kind]
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    return [choice for inner in get_args(kind) for choice in _choices(inner)]


def _without_raw(kind: Any) -> Any:
    """The type with any value in place of items of raw JSON, which only a decoder of JSON has."""
    if get_origin(kind) is Annotated:
        inner, *limits = get_args(kind)
        return Annotated[_without_raw(inner), *limits]
    return list[Any] if kind == list[msgspec.Raw] else kind
