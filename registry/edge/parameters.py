"""How the OpenAPI document describes query parameters. Reading them is the views' part; a test holds both together."""

from collections.abc import Mapping
from typing import Any

type Schema = dict[str, Any]
type Query = Mapping[str, Schema]

TEXT: Schema = {"type": "string"}
TIME: Schema = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
    "description": "ISO 8601; UTC where it names no zone, and a date alone is its midnight",
}
WHEN: Query = {"from": TIME, "to": TIME}


def choice(*words: str, default: str = "") -> Schema:
    return {"type": "string", "enum": list(words), **({"default": default} if default else {})}


def flag(description: str = "", *, default: bool = False) -> Schema:
    schema: Schema = {"anyOf": [{"type": "boolean"}, {"enum": ["1", "0"]}], "default": default}
    return {**schema, "description": description} if description else schema


def whole(default: int | None = None, *, least: int = 0, most: int | None = None, capped: int | None = None) -> Schema:
    """A whole number. Above `most` it is refused; above `capped` it counts as that."""
    schema: Schema = {"type": "integer", "minimum": least}
    if most is not None:
        schema["maximum"] = most
    if default is not None:
        schema["default"] = default
    if capped is not None:
        schema["description"] = f"more than {capped} counts as {capped}"
    return schema


def parameters(query: Query, *, needed: tuple[str, ...] = (), one_of: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The parameter objects of an operation. An optional one that is empty is as if it were missing.

    `needed` ones must be there. Of `one_of` at least one must; OpenAPI has no word for that, so the description says it.
    """
    found = []
    for name, schema in query.items():
        schema = {**schema}
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in needed}
        said = [schema.pop("description", "")]
        if name in one_of:
            said.append(f"one of {' and '.join(one_of)} is required")
        if text := "; ".join(filter(None, said)):
            parameter["description"] = text
        found.append({**parameter, "schema": {**schema, "minLength": 1} if name in needed else _optional(schema)})
    return found


def _optional(schema: Schema) -> Schema:
    if schema.get("type") == "string" and "enum" not in schema:
        return schema  # takes an empty text already
    default = {"default": schema["default"]} if "default" in schema else {}
    bare = {name: value for name, value in schema.items() if name != "default"}
    return {"anyOf": [*bare.get("anyOf", [bare]), {"const": ""}], **default}
