"""Form-encoded parameters with nesting (`a[b]=1&c[]=2&c[]=3`) and their validation."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from sandbox.errors import StripeError, wrong_parameter

_PART = re.compile(r"\[([^\[\]]*)\]")
MOST_FIELDS = 1000
MOST_METADATA = 50


def decode(encoded: str) -> dict[str, Any]:
    """Parse into nested dicts of strings; lists are dicts by index until `Many` converts them. Raises StripeError."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise StripeError(400, "Invalid request: the body is not form-encoded UTF-8.", remembered=False) from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        head, bracket, _ = name.partition("[")
        _put(found, [head, *_PART.findall(name[len(head) :])] if bracket else [head], value)
    return found


def _put(place: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        inner = place.setdefault(part or str(len(place)), {})
        if not isinstance(inner, dict):
            raise wrong_parameter(f"Invalid object: {part}", param=path[0])
        place = inner
    place[path[-1] or str(len(place))] = value


# -- Types of values ------------------------------------------------------------------------------------------


class Kind:
    """Type of a parameter: validates and converts it. Raises StripeError."""

    def read(self, value: Any, name: str) -> Any:
        if not isinstance(value, str):
            raise wrong_parameter(f"Invalid string: {name}", param=name)
        if not value:
            raise wrong_parameter(
                f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; "
                f"however '{name}' cannot be unset. You should remove '{name}' from your request or supply a "
                "non-empty value.",
                param=name,
                code="parameter_invalid_empty",
            )
        return self.convert(value, name)

    def convert(self, value: str, name: str) -> Any:
        if len(value) > 5000:
            raise wrong_parameter(f"Invalid string: {name} is too long", param=name)
        return value


class _Unsettable(Kind):
    """Text; an empty string unsets it."""

    def read(self, value: Any, name: str) -> Any:
        return None if value == "" else super().read(value, name)


class _Integer(Kind):
    def convert(self, value: str, name: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,15}", value):
            raise wrong_parameter(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
        return int(value)


class _Flag(Kind):
    def convert(self, value: str, name: str) -> bool:
        if value not in ("true", "false"):
            raise wrong_parameter(f"Invalid boolean: {value}", param=name)
        return value == "true"


class OneOf(Kind):
    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def convert(self, value: str, name: str) -> str:
        if value not in self.choices:
            raise wrong_parameter(f"Invalid {name}: must be one of {', '.join(self.choices)}", param=name)
        return value


class _Metadata(Kind):
    """Metadata; an empty value removes a key, an empty string removes all keys (None)."""

    def read(self, value: Any, name: str) -> dict[str, str] | None:
        if value == "":
            return None
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise wrong_parameter("Metadata must be a hash of strings.", param=name)
        for key, text in value.items():
            if len(key) > 40 or len(text) > 500:
                raise wrong_parameter("Metadata keys have 40 characters at most, values 500.", param=f"{name}[{key}]")
        if len(value) > MOST_METADATA:
            raise wrong_parameter(f"Metadata has {MOST_METADATA} keys at most.", param=name)
        return value


class Many(Kind):
    """A list of values of one type."""

    def __init__(self, kind: "Spec") -> None:
        self.kind = kind

    def read(self, value: Any, name: str) -> list[Any]:
        if value == "":
            return []
        if not isinstance(value, dict):
            raise wrong_parameter(f"Invalid array: {name}", param=name)
        return [read(self.kind, item, f"{name}[{number}]") for number, item in enumerate(value.values())]


class Span(Kind):
    """A time or a range of times: `created=5`, `created[gte]=5`."""

    def read(self, value: Any, name: str) -> dict[str, int]:
        if not isinstance(value, dict):
            return {"gte": (exact := INTEGER.read(value, name)), "lte": exact}
        return accept(dict.fromkeys(("gt", "gte", "lt", "lte"), INTEGER), value, name)


type Spec = Kind | Mapping[str, Any]

TEXT, UNSETTABLE, INTEGER, FLAG, METADATA, SPAN = Kind(), _Unsettable(), _Integer(), _Flag(), _Metadata(), Span()
EXPAND = {"expand": Many(TEXT)}
PAGE = {"limit": INTEGER, "starting_after": TEXT, "ending_before": TEXT, **EXPAND}


def read(spec: Spec, value: Any, name: str) -> Any:
    if isinstance(spec, Kind):
        return spec.read(value, name)
    if not isinstance(value, dict):
        raise wrong_parameter(f"Invalid object: {name}", param=name)
    return accept(spec, value, name)


def accept(spec: Mapping[str, Any], params: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Validated parameters. Raises StripeError for an unknown parameter or an invalid value."""
    accepted = {}
    for name, value in params.items():
        full = f"{within}[{name}]" if within else name
        if name not in spec:
            raise wrong_parameter(f"Received unknown parameter: {full}", param=full, code="parameter_unknown")
        accepted[name] = read(spec[name], value, full)
    return accepted


def require(params: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if params.get(name) is None:
            raise wrong_parameter(f"Missing required param: {name}.", param=name, code="parameter_missing")
