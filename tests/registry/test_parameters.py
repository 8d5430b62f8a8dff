"""Query parameters behave as the OpenAPI document says: each is sent valid, at its bounds, empty, and invalid."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.http import QueryDict

import registry.urls  # noqa: F401 - every route describes itself before anybody asks
from registry.edge.api import api as description
from registry.edge.parameters import TEXT, Query, choice, flag, parse_extended_time, parse_time, whole
from registry.errors import Invalid
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_payment
from tests.queueing.hooks import endpoint
from tests.queueing.test_jobs import submit

REFUSED = {400, 422}
NOT_LOOKED_AT = {"token", "cursor"}  # what only an answer before can give


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = description.get_openapi_schema()["paths"]
    found = [(method, path, one) for path, methods in paths.items() for method, one in methods.items()]
    return [(m, p, one) for m, p, one in found if any(each["in"] == "query" for each in one.get("parameters", []))]


def allowed(schema: dict[str, Any]) -> Iterator[str]:
    """Values that the schema takes: all of a choice, those at the bounds."""
    for one in schema.get("anyOf", [schema]):
        if "const" in one:
            yield one["const"]
        elif "enum" in one:
            yield from one["enum"]
        elif one["type"] == "boolean":
            yield from ("true", "false")
        elif one["type"] == "integer":
            yield from {str(one["minimum"]), str(one.get("maximum", 10**12)), str(one["minimum"] + 1)}
        elif one.get("format") == "date-time":
            yield from ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05-03:00", "2026-01-02T03:04:05")
        elif one.get("format") == "date":
            yield "2026-01-02"
        else:
            yield "x" * one.get("maxLength", 5)
            yield from [""] * (not one.get("minLength"))


def forbidden(schema: dict[str, Any]) -> Iterator[str]:
    """Values just outside of the schema."""
    kinds = schema.get("anyOf", [schema])
    if "" not in allowed(schema):
        yield ""
    if not all(one.get("type") == "string" and "enum" not in one and "format" not in one for one in kinds):
        yield "nonsense"
    for one in kinds:
        if "maximum" in one:
            yield str(one["maximum"] + 1)
        if one.get("minimum") is not None:
            yield str(one["minimum"] - 1)
        if "maxLength" in one:
            yield "x" * (one["maxLength"] + 1)


class Caller:
    """An administrator's program that fills in paths and what is needed."""

    def __init__(self, api: Api, ids: dict[str, str]) -> None:
        self.api, self.ids = api, ids

    async def status(self, method: str, path: str, operation: dict[str, Any], leave_out: str = "", **query: str) -> int:
        for one in operation["parameters"]:
            if one["in"] == "path":
                path = path.replace(f"{{{one['name']}}}", self.ids.get(path.split("/")[1], "thing"))
        needed = {one["name"]: "q" for one in operation["parameters"] if one["in"] == "query" and one["required"]}
        needed |= {"namespace": "n", "task": "t"} if path == "/api/v1/pop" else {}
        needed |= {"wait": "0"} if path.endswith("/events") else {}
        times = {"from": "2026-01-01", "to": "2026-01-03"}  # a range is looked at as a whole
        names = {one["name"] for one in operation["parameters"]}
        around = {n: v for n, v in times.items() if n in names and set(query) & set(times) and all(query.values())}
        sent = {**needed, **around, **query}
        sent.pop(leave_out, None)
        async with self.api.session.request(
            method, path, params=sent, json={} if method == "post" else None
        ) as response:
            assert response.status < 500, (method, path, sent, await response.text())
            return response.status


@pytest.fixture
async def caller(server: str, tenant) -> Any:
    payment = await in_thread(make_payment, tenant)
    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook")
    async with Api(server, await make_key(tenant, "admin")) as api:
        job = await submit(api, "queue.rotate", input={})
        ids = {"payments": str(payment.correlation_id), "webhook-endpoints": str(hook.uuid), "jobs": job["id"]}
        yield Caller(api, ids)


async def test_only_allowed_values_are_accepted(caller: Caller):
    wrong = []
    for method, path, operation in operations():
        for one in operation["parameters"]:
            if one["in"] != "query" or one["name"] in NOT_LOOKED_AT:
                continue
            good = [(value, True) for value in quick(one, allowed(one["schema"]))]
            for value, taken in [*good, *((value, False) for value in forbidden(one["schema"]))]:
                status = await caller.status(method, path, operation, **{one["name"]: value})
                if (status in REFUSED) is taken:
                    wrong.append((method, path, one["name"], value[:40], status))

    assert not wrong, "\n".join(map(str, wrong))


def quick(one: dict[str, Any], values: Iterator[str]) -> Iterator[str]:
    """Without those that would make the caller wait for an event that does not come."""
    yield from (value for value in values if one["name"] != "wait" or value in ("0", "false", ""))


async def test_required_parameters_are_required(caller: Caller):
    needed = [
        (method, path, one["name"], operation)
        for method, path, operation in operations()
        for one in operation["parameters"]
        if one["in"] == "query" and one["required"]
    ]

    assert [(method, path, name) for method, path, name, _ in needed] == [("delete", "/api/v1/dlq", "queue")]
    for method, path, name, operation in needed:
        assert await caller.status(method, path, operation, leave_out=name) in REFUSED


async def test_a_pop_without_a_queue_requires_a_namespace_or_a_task(caller: Caller):
    [(_, _, operation)] = [one for one in operations() if one[1] == "/api/v1/pop"]
    said = {one["name"]: one.get("description", "") for one in operation["parameters"]}

    for query, status in (("", 400), ("?namespace=", 400), ("?namespace=n", 204), ("?task=t", 204)):
        async with caller.api.get(f"/api/v1/pop{query}") as response:
            assert response.status == status
    assert [name for name, text in said.items() if "one of namespace and task is required" in text] == [
        "namespace",
        "task",
    ]


async def test_no_operation_reads_a_parameter_that_is_not_described(caller: Caller, monkeypatch):
    asked: dict[str, set[str]] = defaultdict(set)
    here: list[str] = []
    real = QueryDict.get

    def noting(self: QueryDict, key: str, default: Any = None) -> Any:
        if not self._mutable:  # of a request
            asked[here[-1]].add(key)
        return real(self, key, default)

    monkeypatch.setattr(QueryDict, "get", noting)
    paths = description.get_openapi_schema()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            if operation["tags"] == ["service"]:
                continue
            here.append(f"{method} {path}")
            await caller.status(method, path, {"parameters": [], **operation})

    told = {
        f"{method} {path}": {one["name"] for one in operation.get("parameters", [])}
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    assert len(asked) > 20
    assert {name: unknown for name, names in asked.items() if (unknown := names - told[name])} == {}


async def test_the_defaults_are_those_in_responses(caller: Caller):
    """Where an answer repeats what it took as the page."""
    shown = 0
    for method, path, operation in operations():
        defaults = {one["name"]: one["schema"].get("default") for one in operation["parameters"]}
        if method != "get" or "offset" not in defaults:
            continue
        address = path.replace("{queue}", "q").replace("{name}", "n").replace("{group}", "g")
        async with caller.api.get(address) as response:
            body = await response.json()
        page = body.get("pagination", body)
        if "limit" in page:
            assert (page["limit"], page["offset"]) == (defaults["limit"], defaults["offset"]), path
            shown += 1

    assert shown >= 3


def test_a_parameter_describes_its_values():
    text, many, some_of, needed = Query(
        {"text": TEXT, "many": whole(5, least=1, capped=9), "some": choice("a", "b", default="a"), "needed": TEXT},
        needed=("needed",),
        one_of=("text",),
    ).describe()

    assert text == {
        "name": "text",
        "in": "query",
        "required": False,
        "description": "one of text is required",
        "schema": {"type": "string"},
    }
    assert many["schema"] == {"anyOf": [{"type": "integer", "minimum": 1}, {"const": ""}], "default": 5}
    assert some_of["schema"] == {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"const": ""}], "default": "a"}
    assert (needed["required"], needed["schema"]) == (True, {"type": "string", "minLength": 1})
    assert {"const": ""} in Query({"f": flag()}).describe()[0]["schema"]["anyOf"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02t03:04:05z",  # RFC 3339 allows small letters
        "2026-01-02 03:04:05",
        "2026-01-02T03:04:05",
        "2026-01-02T06:04:05+03:00",
        "2026-01-02T06:04:05 03:00",  # a "+" that was not percent-encoded
    ],
)
def test_a_time_is_read_in_utc(text: str):
    assert parse_time(text) == parse_extended_time(text) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "2026-01-02Z", "2026-02-30", "9999-12-31T23:59:59-01:00"])
def test_other_texts_are_not_times(text: str):
    for parse in (parse_time, parse_extended_time):
        with pytest.raises(ValueError):
            parse(text)


@pytest.mark.parametrize("text", ["20260102", "2026-W01-5", "2026W015", "20260102T000000Z"])
def test_the_basic_format_and_weeks_are_times_but_not_extended_ones(text: str):
    assert parse_time(text) == datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(ValueError):
        parse_extended_time(text)


@pytest.mark.parametrize("text", ["20260102", "2026-W01-5", "20260102T030405Z"])
async def test_the_queue_takes_times_in_every_format(caller: Caller, text: str):
    for path in ("/api/v1/messages", "/api/v1/dlq", "/api/v1/status"):
        async with caller.api.get(path, params={"from": text}) as response:
            assert response.status == 200, path
    async with caller.api.get("/api/v1/pop/queue/q", params={"subscriptionFrom": text}) as response:
        assert response.status == 204


def test_a_parameter_is_checked_when_it_is_looked_up(rf):
    values = Query({"many": whole(5, least=1, most=9), "some": choice("a", "b")}).read(rf.get("/?many=10&more=1"))

    assert values["some"] is None
    with pytest.raises(Invalid) as refused:
        values["many"]
    assert refused.value.errors == [{"field": "many", "message": "wants a whole number from 1 to 9"}]


def test_a_strict_query_refuses_unknown_parameters(rf):
    with pytest.raises(Invalid) as refused:
        Query({"known": TEXT}, strict=True).read(rf.get("/?known=1&more=1"))

    assert refused.value.errors == [{"field": "more", "message": "unknown; allowed: known"}]
