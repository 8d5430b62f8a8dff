"""Null counts as missing for every optional field, in every body that the service describes."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import registry.urls  # noqa: F401 - every route describes itself before anybody asks
from registry.edge import nulls
from registry.edge.api import api as description
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_payment

NAMED: dict[str, Any] = {  # fields that are needed, by name, where their type alone does not say what is taken
    "url": "https://93.184.215.14/hook", "amount": "19.90", "queue": "orders", "type": "ack", "transactionId": "t1",
    "partitionId": str(uuid4()), "data": {}, "code": "x", "target": "x", "subscriptionTimestamp": "2026-01-01T00:00:00Z", "enabled": False,
    "kind": "payments.export", "cron": "0 0 * * *",
}  # fmt: skip
ONE_OF: dict[str, dict[str, Any]] = {  # fields that may be missing one by one, but not all
    "ReplayRange": {"from": "2026-01-01T00:00:00Z"},
    "SeekBody": {"toEnd": True},
    "OperationBody": {"transactionId": "t1", "partitionId": str(uuid4())},
}


def bodies() -> Iterator[Any]:
    """Every operation with a body that is described field by field."""
    schema = description.get_openapi_schema()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            if name in schema["components"]["schemas"]:
                yield pytest.param(path, method, name, id=f"{method} {path}")


def smallest(name: str) -> dict[str, Any]:
    """A body with what is needed and no more."""
    kind = description.get_openapi_schema()["components"]["schemas"][name]
    needed = {field: value_of(field, kind["properties"][field]) for field in kind.get("required", ())}
    return needed | ONE_OF.get(name, {})


def value_of(field: str, kind: dict[str, Any]) -> Any:
    if field in NAMED:
        return NAMED[field]
    if kind.get("type") == "array":
        item = kind["items"]
        return [smallest(item["$ref"].rpartition("/")[2]) if "$ref" in item else {"amount": 1}]
    raise AssertionError(f"say in NAMED what {field} may be: {kind}")


def with_nulls(name: str) -> dict[str, Any]:
    """The smallest body, in which all that may be missing is null; inside its lists too."""
    kind = description.get_openapi_schema()["components"]["schemas"][name]
    body: dict[str, Any] = dict.fromkeys(kind["properties"], None)
    for field in kind.get("required", ()):
        value = value_of(field, kind["properties"][field])
        ref = kind["properties"][field].get("items", {}).get("$ref", "").rpartition("/")[2]
        body[field] = [with_nulls(ref)] if ref else value
    return body | ONE_OF.get(name, {})


@pytest.mark.parametrize(("path", "method", "name"), list(bodies()))
async def test_null_is_as_if_missing_in_every_body(server: str, tenant, path: str, method: str, name: str):
    payment = await in_thread(make_payment, tenant)
    async with Api(server, await make_key(tenant, "read", "write", "admin")) as api:
        answers = []
        for body in (smallest(name), with_nulls(name)):
            address = re.sub(r"{\w+}", lambda _: str(uuid4()), path.replace("{id}", str(payment.correlation_id)))
            async with api.session.request(method.upper(), address, json=body) as response:
                answers.append((response.status, await response.text()))

    (without, told), (status, said) = answers
    assert without not in (400, 415, 422), told
    assert status == without, said


def test_the_description_says_that_optional_fields_may_be_null():
    schemas = description.get_openapi_schema()["components"]["schemas"]
    names = {parameter.values[2] for parameter in bodies()}

    for name in names:
        for field, kind in schemas[name]["properties"].items():
            optional = field not in schemas[name].get("required", ())
            assert not optional or "null" in str(kind) or not kind.keys() & {"type", "$ref", "anyOf"}, f"{name}.{field}"


FIELDS = ("amount", "currency", "description", "metadata", "processor", "paymentMethod", "customer", "offSession")


async def test_the_fields_of_a_payment_that_was_read_can_be_sent_again(api: Api):
    payment = await api.pay()
    told = await api.detail(payment["correlationId"])
    again = {name: told[name] for name in FIELDS if name in told} | {"priority": None, "scheduledFor": None}

    async with api.post("/payments", json={**again, "correlationId": payment["correlationId"]}) as response:
        said = await response.text()

    assert response.status == 202, said
    assert response.headers.get("Idempotent-Replayed") == "true"


async def test_an_item_of_a_batch_may_have_nulls(api: Api):
    items = [{"amount": "19.90", "description": None, "priority": None, "offSession": None, "metadata": {"a": None}}]

    async with api.post("/payments/batch", json={"items": items}) as response:
        said = await response.json()

    assert [one["status"] for one in said["results"]] == ["queued"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"amount": None, "description": None}, ["amount"]),
        ({"description": None}, ["amount"]),
        ({"amount": 1, "description": None, "priority": 10}, ["priority"]),
        ({"amount": 1, "description": None, "unknown": None}, ["unknown"]),
    ],
)
async def test_other_faults_are_named_and_nulls_are_not(api: Api, body, named):
    async with api.post("/payments", json=body) as response:
        said = await response.json()

    assert (response.status, [one["field"] for one in said["errors"]]) == (422, named)


class Inner(msgspec.Struct):
    size: int = 3


class Outer(msgspec.Struct, rename="camel"):
    amount: msgspec.Raw
    free_text: str = "x"
    inner: Inner | None = None
    many: list[Inner] = []
    kept: dict[str, int | None] = {}


def test_numbers_and_nulls_in_metadata_are_unchanged():
    body = b'{"amount": 1.10, "freeText": null, "inner": {"size": null}, "many": [{"size": null}], "kept": {"a": null}}'

    found = nulls.decode(msgspec.json.Decoder(Outer), body)

    assert (bytes(found.amount), found.free_text, found.kept) == (b"1.10", "x", {"a": None})
    assert (found.inner, found.many) == (Inner(), [Inner()])
