"""`/docs`: the OpenAPI document as a page, in groups, with the document's examples. It loads nothing from other servers."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from registry.edge.api import PROBLEMS, api
from registry.edge.pages import KEY_HEADER, address_of, anybody, page

type Schema = dict[str, Any]

SHORT = 72  # characters of a JSON text that stays on one line
ADDRESSES = 8  # hosts whose page is kept; a service has one or two
PROBLEM = {
    "type": "urn:registry:problem:invalid",
    "title": "Some fields are not acceptable",
    "status": 422,
    "detail": "some fields are not acceptable",
    "errors": [{"field": "amount", "message": "BRL has 2 decimals, no more"}],
}


@page("GET", "HEAD")
async def docs(request: HttpRequest) -> HttpResponse:
    """The reference of the HTTP API. It is answered without the database, too; then without the visitor's navigation."""
    context = {**_reference(address_of(request)), "visitor": await anybody(request)}
    return await asyncio.to_thread(render, request, "registry/docs.html", context)


@lru_cache(ADDRESSES)
def _reference(address: str) -> dict[str, Any]:
    """The page's content. Routes do not change while the process runs."""
    schema = api.get_openapi_schema()
    found = [one for path, methods in schema["paths"].items() for one in _operations(schema, address, path, methods)]
    order = {
        name: number for number, name in enumerate(api.examples)
    }  # files of examples begin with what one needs first
    found.sort(key=lambda one: order.get(f"{one['method']} {one['path']}", len(order)))
    groups = [
        {
            "tag": tag["name"],
            "title": tag["x-title"],
            "text": tag["description"],
            "operations": [one for one in found if tag["name"] in one["tags"]],
        }
        for tag in schema["tags"]
    ]
    return {
        "address": address,
        "description": schema["info"]["description"],
        "groups": groups,
        "count": len(found),
        "problems": [(status, answer["description"]) for status, answer in PROBLEMS.items()],
        "problem": json.dumps(PROBLEM, indent=2),
    }


def _operations(schema: Schema, address: str, path: str, methods: Schema) -> Iterator[dict[str, Any]]:
    for method, operation in methods.items():
        answers = {str(status): answer for status, answer in operation["responses"].items()}
        good = {status: answer for status, answer in answers.items() if status[0] == "2"}
        fields = list(_fields(schema, operation))
        parameters = [_field(one["name"], one, one["schema"]) for one in operation.get("parameters", [])]
        yield {
            "name": operation["operationId"],
            "tags": operation["tags"],
            "method": method.upper(),
            "path": path,
            "summary": _with_code(operation.get("summary", "")),
            "key": _key(operation),
            "parameters": parameters,
            "fields": fields,
            "request": _curl(address, path, method.upper(), operation),
            "answers": [(status, _with_code(answer["description"])) for status, answer in good.items()],
            "errors": [status for status in answers if status not in good],
            "answer": next(filter(None, (_answer(status, one) for status, one in good.items())), None),
            "words": " ".join(
                [method, path, operation.get("summary", ""), *(one["name"] for one in fields + parameters)]
            ).lower(),
        }


def _key(operation: Schema) -> str:
    """Who may call it: with a key, with or without, or anybody."""
    security = operation.get("security", [{"key": []}])
    if not any(security):
        return "No key is needed."
    return "A key is needed, except for the open tenant." if {} in security else ""


# -- Fields ----------------------------------------------------------------------------------------------------


def _fields(schema: Schema, operation: Schema) -> Iterator[dict[str, Any]]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    named = schema["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {})
    for name, field in named.get("properties", {}).items():
        yield _field(name, {"required": name in named.get("required", [])}, field)


def _field(name: str, said: Schema, schema: Schema) -> dict[str, Any]:
    kinds = [schema, *schema.get("anyOf", [])]
    types = (one["type"] for one in kinds if one.get("type") not in (None, "null"))
    texts = [said.get("description"), *(one.get("description") for one in kinds)]
    return {
        "name": name,
        "place": said.get("in", ""),
        "type": " or ".join(dict.fromkeys(types)),
        "required": said.get("required", False),
        "text": _with_code("; ".join(filter(None, [next(filter(None, texts), ""), *_limits(kinds)]))),
    }


def _limits(kinds: list[Schema]) -> Iterator[str]:
    """The default and the allowed values, in words."""
    merged = {name: value for kind in kinds for name, value in kind.items()}
    if merged.get("enum"):
        yield " | ".join(map(str, merged["enum"]))
    if "minimum" in merged and "maximum" in merged and merged["maximum"] < 2**31 - 1:
        yield (
            f"{merged['minimum']} to {merged['maximum']:g}"
            if merged["maximum"] > 1e6
            else f"{merged['minimum']} to {merged['maximum']}"
        )
    if merged.get("default") not in (None, "", [], {}):
        yield f"default {json.dumps(merged['default'])}"


def _with_code(text: str) -> SafeString:
    """The text with `…` as code."""
    return mark_safe(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))


# -- Examples --------------------------------------------------------------------------------------------------


def _curl(address: str, path: str, method: str, operation: Schema) -> str:
    """The example's request as a command."""
    given = {(one["in"], one["name"]): one["example"] for one in operation.get("parameters", []) if "example" in one}
    values = {name: quote(str(value), safe="") for (place, name), value in given.items() if place == "path"}
    query = urlencode({name: _plain(value) for (place, name), value in given.items() if place == "query"})
    target = re.sub(r"\{(\w+)\}", lambda at: values.get(at[1], at[0]), path) + (f"?{query}" if query else "")
    words = ["curl" + ("" if method == "GET" else f" -X {method}") + f" {shlex.quote(address + target)}"]
    if any(operation.get("security", [{"key": []}])):
        words.append(KEY_HEADER.strip())
    words += [f"-H {shlex.quote(f'{name}: {value}')}" for (place, name), value in given.items() if place == "header"]
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        if "example" in media:
            words += [f"-H 'Content-Type: {kind}'", f"-d {shlex.quote(_json(media['example']))}"]
    return " \\\n  ".join(words)


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _answer(status: str, answer: Schema) -> tuple[str, str] | None:
    """Status and text of the response that has an example."""
    for media in answer.get("content", {}).values():
        if "example" in media:
            return status, media["example"] if isinstance(media["example"], str) else _json(media["example"])
    return None


def _json(value: Any) -> str:
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= SHORT else json.dumps(value, indent=2, ensure_ascii=False)
