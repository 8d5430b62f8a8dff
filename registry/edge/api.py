"""JSON responses, problem details (RFC 9457), and the API object with the OpenAPI document."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.operation import Operation

from registry.edge import examples, nulls
from registry.edge.parameters import Query
from registry.errors import Problem

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


# -- Descriptions of operations ------------------------------------------------------------------------------

KEYLESS: list[dict[str, list[str]]] = [{"key": []}, {}]  # a key, or nothing: then as the open tenant
PROBLEMS = {
    str(status): {"description": text, "content": {"application/problem+json": {}}}
    for status, text in (
        (400, "Not JSON"),
        (401, "No valid key"),
        (403, "The key lacks the scope"),
        (404, "Not found"),
        (409, "Conflict: other content under the same id, or a state that does not allow it"),
        (410, "Expired"),
        (413, "Body above the limit"),
        (415, "Not application/json"),
        (422, "Fields not acceptable"),
        (429, "Rate limit"),
        (503, "Temporarily unavailable; Retry-After says when to try again"),
    )
}


def described(
    good: str, *problems: int, query: Query | None = None, accepted: str = "", keyless: bool = True
) -> dict[str, Any]:
    """The description of an operation that ninja cannot infer: `good` is its 200, `accepted` its 202."""
    texts = {200: good, 202: accepted}
    answers = {n: {"description": text, "content": {"application/json": {}}} for n, text in texts.items() if text}
    return {
        **({"security": KEYLESS} if keyless else {}),
        "responses": answers | {status: PROBLEMS[str(status)] for status in (401, 403, *problems, 429, 503)},
        "parameters": query.describe() if query else [],
    }


# -- The API object -----------------------------------------------------------------------------------------


_PLAIN = str.maketrans({"{": "", "}": "", "-": "_"})


def _own_schema(kind: Any) -> dict[str, Any]:
    """The schema of a type that msgspec does not know."""
    return kind.json_schema


class OperationGroup(NamedTuple):
    """A group of operations in the document and on /docs: its tag, its title, and a sentence about it."""

    tag: str
    title: str
    text: str


class Api(NinjaAPI):
    """The API and its OpenAPI document. Ordinary routes are ninja's; hot routes are plain views, described by hand."""

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
        self.examples: dict[str, examples.OperationExample] = {}  # by "METHOD /path"
        self.groups: Sequence[OperationGroup] = ()

    def add_examples(self, module: str) -> None:
        """Read `examples.json` beside this module: one example for each of its package's operations."""
        self.examples.update(examples.read(Path(module).with_name("examples.json")))

    def describe(self, path: str, method: str, operation: dict[str, Any], *structs: type[msgspec.Struct]) -> None:
        """Put a plain view into the OpenAPI document, with the schemas of its structs."""
        self.plain.setdefault(path, {})[method.lower()] = operation
        _, components = msgspec.json.schema_components(
            structs, schema_hook=_own_schema, ref_template="#/components/schemas/{name}"
        )
        self.schemas.update(components)

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """By method and path: an id by module, as ninja makes it, would change whenever a view moves."""
        path = operation.path.strip("/").replace("/", "_").translate(_PLAIN)
        return f"{operation.methods[0].lower()}_{path}"

    def get_openapi_schema(self, **more: Any) -> dict[str, Any]:  # type: ignore[override]  # always without a prefix
        schema = super().get_openapi_schema(path_prefix="", **more)
        for path, operations in self.plain.items():
            schema["paths"].setdefault(path, {}).update(operations)
        for path, operations in schema["paths"].items():
            schema["paths"][path] = {m: self._with_example(m, path, one) for m, one in operations.items()}
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update({name: nulls.allow(one) for name, one in self.schemas.items()})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        schema["tags"] = [
            {"name": group.tag, "description": group.text, "x-title": group.title} for group in self.groups
        ]
        return schema

    def _with_example(self, method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
        example = self.examples.get(f"{method.upper()} {path}")
        operation = examples.without_default(operation)
        return examples.shown(operation, example) if example else operation


api = Api()


@api.exception_handler(Problem)
def _problem(_request: HttpRequest, error: Problem) -> HttpResponse:
    raise error  # LeanHandler answers it as that of any other view, and puts its code into the request log
