"""Nulls in JSON bodies: an optional field that is null counts as missing."""

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def decode[S](decoder: msgspec.json.Decoder[S], body: bytes) -> S:
    """The body as the decoder's struct. Nulls are removed only after decoding failed: most senders send none.

    Raises msgspec.ValidationError.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        less = _without(msgspec.Raw(body), decoder.type)
        if bytes(less) == body:
            raise
    return decoder.decode(less)


def _without(raw: msgspec.Raw, kind: Any) -> msgspec.Raw:
    """The same JSON without nulls in optional fields of a struct and of the structs in it. Numbers stay as written."""
    kind, item = _shape(kind)
    try:
        if item is not None:
            return msgspec.Raw(_encode([_without(one, item) for one in _items.decode(raw)]))
        if kind is not None:
            return msgspec.Raw(_encode(_kept(_fields.decode(raw), kind)))
    except msgspec.ValidationError:
        pass  # neither a list nor an object: the decoder raises the error
    return raw


def _kept(fields: dict[str, msgspec.Raw], kind: type[msgspec.Struct]) -> dict[str, msgspec.Raw]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    return {
        name: _without(value, known[name].type) if name in known else value
        for name, value in fields.items()
        if name not in known or known[name].required or bytes(value) != b"null"
    }


def _shape(kind: Any) -> tuple[type[msgspec.Struct] | None, Any]:
    """The struct that a type is, or the type of its items; neither for other types."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _shape(arguments[0])
    if origin in (Union, UnionType):
        return next((found for found in map(_shape, arguments) if any(found)), (None, None))
    if origin is list:
        return None, arguments[0]
    return (kind, None) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else (None, None)


def allow(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI schema of a struct, in which optional fields may be null."""
    required = schema.get("required", ())
    fields = {
        name: field if name in required or _takes_null(field) else _or_null(field)
        for name, field in schema.get("properties", {}).items()
    }
    return {**schema, "properties": fields} if fields else schema


def _takes_null(field: dict[str, Any]) -> bool:
    kinds = [one.get("type") for one in field.get("anyOf", [field])]
    return "null" in kinds or not (kinds[0] or "$ref" in field or "anyOf" in field or "enum" in field)


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    outside: dict[str, Any] = {name: field[name] for name in ("default", "description") if name in field}
    inside = {name: value for name, value in field.items() if name not in outside}
    return {**outside, "anyOf": [*inside.get("anyOf", [inside]), {"type": "null"}]}
