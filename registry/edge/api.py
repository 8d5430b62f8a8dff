"""The JSON edges of the API: problem details (RFC 9457), decoding with every field's fault named, times, OpenAPI."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from registry.edge import nulls
from registry.errors import Invalid, Malformed, Problem, UnsupportedMediaType

FAULTS_NAMED = 20  # unknown fields named in one answer: it must not become larger than the question
ENCODER = msgspec.json.Encoder(decimal_format="number")


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(ENCODER.encode(data), status=status, content_type="application/json", headers=headers)


def problem_response(error: Problem, /, **more: str) -> HttpResponse:
    """RFC 9457: type, title, status, detail; `errors` names fields; `more` are extension members."""
    body: dict[str, Any] = {
        "type": error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **more,
    }
    if error.errors:
        body["errors"] = error.errors
    return HttpResponse(
        ENCODER.encode(body), status=error.status, content_type="application/problem+json", headers=error.headers
    )


@lru_cache(1024)  # all payments of one commit carry the same time
def iso(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


# -- Reading JSON ------------------------------------------------------------------------------------------


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

    `nul`: texts may contain that character, because the caller looks for it itself.
    """
    kind = request.META.get("CONTENT_TYPE", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType
    body = request.body
    try:
        # Two fields of one name: readers differ in which one counts, so neither does.
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
    """Every field's fault, not only the first: each is converted on its own once the whole has failed."""
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
            msgspec.convert(data[name], field.type, strict=True, dec_hook=decoder.dec_hook)
        except (msgspec.ValidationError, ValueError) as fault:
            faults.append({"field": name, "message": str(fault)})
    return faults


def _own_schema(kind: Any) -> dict[str, Any]:
    """What a type that msgspec does not know says of itself."""
    return kind.json_schema


# -- The API object -----------------------------------------------------------------------------------------


class Api(NinjaAPI):
    """Ordinary routes are ninja's; hot ones are plain views, described in the same OpenAPI document."""

    def __init__(self) -> None:
        super().__init__(
            title="Registry",
            version="1",
            description="Accept a payment, settle it surely, watch it live.",
            docs_url=None,
            openapi_url=None,
            urls_namespace="api",
        )
        self.plain: dict[str, dict[str, Any]] = {}
        self.schemas: dict[str, Any] = {}

    def describe(self, path: str, method: str, operation: dict[str, Any], *structs: type[msgspec.Struct]) -> None:
        """Put a plain view into the OpenAPI document, with the schemas of its structs."""
        self.plain.setdefault(path, {})[method.lower()] = operation
        _, components = msgspec.json.schema_components(
            structs, schema_hook=_own_schema, ref_template="#/components/schemas/{name}"
        )
        self.schemas.update(components)

    def get_openapi_schema(self, **more: Any) -> dict[str, Any]:  # type: ignore[override]  # always without a prefix
        schema = super().get_openapi_schema(path_prefix="", **more)
        for path, operations in self.plain.items():
            schema["paths"].setdefault(path, {}).update(operations)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update({name: nulls.allow(one) for name, one in self.schemas.items()})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        return schema


api = Api()


@api.exception_handler(Problem)
def _problem(_request: HttpRequest, error: Problem) -> HttpResponse:
    return problem_response(error)
