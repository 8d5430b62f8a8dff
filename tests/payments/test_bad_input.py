"""Invalid requests get a problem that names the fault, and nothing is accepted."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from aiohttp import ClientResponse

from payments.models import Payment
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api

JSON = {"Content-Type": "application/json"}


async def send(api: Api, body: bytes, path: str = "/payments", **headers: str) -> tuple[int, dict[str, Any]]:
    async with api.post(path, data=body, headers={**JSON, **headers}) as response:
        return response.status, await problem(response)


async def problem(response: ClientResponse) -> dict[str, Any]:
    """The body of a refusal, which is problem details with the status that was sent."""
    assert response.content_type == "application/problem+json", await response.text()
    body = await response.json(content_type=None)
    assert body["status"] == response.status
    assert {"type", "title", "status", "detail"} <= set(body)
    assert response.headers["X-Request-Id"]
    return body


def faults(body: dict[str, Any]) -> dict[str, str]:
    return {fault["field"]: fault["message"] for fault in body["errors"]}


async def accepted(tenant: Tenant) -> int:
    async with database.own_connection():
        return await Payment.async_objects.of(tenant.pk).acount()


async def raw(api: Api, head: str, body: bytes = b"", *, read: int = 65536) -> bytes:
    """What the service answers to bytes that no client library would send."""
    address = urlsplit(api.address)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode("latin1") + body)
        await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read(read)
    finally:
        writer.close()


# -- JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"amount": 1',
        b'{"amount": 1} {}',
        b"amount=1",
        b"'amount'",
        b'\xef\xbb\xbf{"amount": 1}',
        '{"amount": 1}'.encode("utf-16"),
        b'{"amount": 1, "description": "\xff"}',
        b'{"amount": 1, "description": "\xed\xa0\x80"}',
        b'{"amount": 1, "description": "\\ud800"}',
        b'{"amount": 1, "description": "\\udc00\\ud800"}',
        b'{"amount": 1, "description": "\\x41"}',
        b'{"amount": 1, "description": "line\nbreak"}',
        b'{"amount": NaN}',
        b'{"amount": Infinity}',
        b'{"amount": -Infinity}',
        b'{"amount": 019.90}',
        b'{"amount": +1}',
        b'{"amount": .5}',
        b'{"amount": 0x10}',
        b'{"amount": 1,}',
        b"{amount: 1}",
        b'{"amount": 1} // comment',
        b'{"amount": 1, "amount": 2}',
        b'{"amount": 1, "metadata": {"a": 1, "a": 2}}',
        b'{"amount": 1, "\\u0061mount": 2}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"amount": ' + b"9" * 60_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_body_that_is_not_json_is_400(api: Api, tenant, body):
    status, said = await send(api, body)

    assert (status, said["title"]) == (400, "The body is not the JSON that is expected here")
    assert await accepted(tenant) == 0


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
async def test_a_hundred_thousand_brackets_are_400(api: Api, body):
    status, _ = await send(api, body, "/payments/batch")

    assert status == 400


async def test_the_field_that_stands_twice_is_named(api: Api):
    _, said = await send(api, b'{"amount": 1, "description": "a", "amount": 2}')

    assert "'amount'" in said["detail"]


async def test_a_field_that_stands_twice_among_very_many_is_found_at_once(api: Api):
    names = ",".join(f'"{n:x}":1' for n in range(200_000))

    async with asyncio.timeout(5):
        status, _ = await send(api, f'{{{names},"30d3f":1}}'.encode(), "/payments/batch")

    assert status == 400


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"text"', b"[]", b'[{"amount": 1}]'])
async def test_json_that_is_no_object_is_422(api: Api, body):
    status, said = await send(api, body)

    assert status == 422
    assert faults(said).keys() == {"body"}


# -- Size ------------------------------------------------------------------------------------------------------

TOO_MUCH = b'{"amount": "1.00", "description": "' + b"x" * 65_536 + b'"}'


async def test_a_body_above_64_kib_is_413(api: Api, tenant):
    status, _ = await send(api, TOO_MUCH)

    assert status == 413
    assert await accepted(tenant) == 0


async def test_a_body_above_64_kib_in_chunks_without_a_length_is_413(api: Api, tenant):
    async def chunks():
        for start in range(0, len(TOO_MUCH), 1000):
            yield TOO_MUCH[start : start + 1000]

    async with api.post("/payments", data=chunks(), headers=JSON) as response:
        assert response.status == 413
        await problem(response)
    assert await accepted(tenant) == 0


async def test_a_content_length_above_the_limit_is_413_before_the_body_arrives(api: Api):
    answer = await raw(
        api, "POST /payments HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 99999999999\n\n"
    )

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_batch_above_4_mib_is_413(api: Api):
    status, _ = await send(api, b" " * (4 * 1024 * 1024 + 1), "/payments/batch")

    assert status == 413


async def test_a_body_of_exactly_64_kib_is_read(api: Api):
    body = b'{"amount": "1.00"}'.ljust(65_536)

    async with api.post("/payments", data=body, headers=JSON) as response:
        assert response.status == 202


# -- Amounts and currencies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount",
    [
        *(
            "-1",
            "-0.01",
            "0",
            "0.00",
            "-0",
            "0e10",
            "1.999",
            "19.900000000000000000000000000000000001",
            "1e400",
            "1e-400",
        ),
        *(
            "1e99999999999999999999",
            "1e-99999999",
            "10000000000000.00",
            "9" * 300,
            "true",
            "false",
            "null",
            "[]",
            "[1]",
            "{}",
        ),
        *(
            '"NaN"',
            '"sNaN"',
            '"Infinity"',
            '"-Infinity"',
            '""',
            '" "',
            '"ten"',
            '"1,50"',
            '"0x10"',
            '"19.90 BRL"',
            '"1e400"',
        ),
        *(
            '"1_000"',
            '"+5"',
            '" 5"',
            '"5 "',
            '"５"',
            '"１２.５０"',
            '"٣"',
            '"5."',
            '".5"',
            '"05"',
            '"1e99999999999999999999"',
            '"1\\n"',
        ),
        *('"--1"', '"1.2.3"', '"\\u0000"', '"' + "9" * 5000 + '"'),
    ],
    ids=lambda amount: amount[:30],
)
async def test_an_amount_that_is_no_exact_positive_number_is_422(api: Api, tenant, amount):
    status, said = await send(api, f'{{"amount": {amount}}}'.encode())

    assert status == 422
    assert faults(said).keys() == {"amount"}
    assert await accepted(tenant) == 0


@pytest.mark.parametrize(
    ("amount", "currency"), [("19.90", "JPY"), ("0.5", "CLP"), ("1.2345", "KWD"), ("1.234", "USD")]
)
async def test_decimals_that_the_currency_does_not_have_are_422(api: Api, amount, currency):
    status, said = await send(api, json.dumps({"amount": amount, "currency": currency}).encode())

    assert status == 422
    assert currency in faults(said)["amount"]


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (19.9, "BRL", "19.90"),
        ("1990", "JPY", "1990"),
        (1990.0, "JPY", "1990"),
        ("1.234", "KWD", "1.234"),
        ("1e1", "BRL", "10.00"),
    ],
)
async def test_an_amount_is_returned_with_the_decimals_of_its_currency(api: Api, amount, currency, text):
    payment = await api.pay(amount, currency=currency)

    assert payment["amount"] == text


@pytest.mark.parametrize("currency", ['"XXX"', '"brl"', '""', '"BRL "', '"R$"', "986", "[]", "true", '"\\u0000"'])
async def test_an_unknown_currency_is_422(api: Api, currency):
    status, said = await send(api, f'{{"amount": "1.00", "currency": {currency}}}'.encode())

    assert status == 422
    assert "currency" in faults(said)


async def test_an_amount_above_the_tenants_limit_is_422(api: Api, tenant):
    async with database.own_connection():
        await Tenant.async_objects.filter(pk=tenant.pk).aupdate(max_amount=10_000)

    status, said = await send(api, b'{"amount": "100.01"}')

    assert status == 422
    assert "100.00" in faults(said)["amount"]


# -- Fields ------------------------------------------------------------------------------------------------------


async def test_an_unknown_field_is_refused_by_name(api: Api, tenant):
    status, said = await send(api, b'{"amount": "1.00", "ammount": "2.00", "correlation_id": "x"}')

    assert status == 422
    assert faults(said).keys() == {"ammount", "correlation_id"}
    assert await accepted(tenant) == 0


async def test_all_faults_of_a_body_come_in_one_answer(api: Api):
    body = {
        "amount": "1.999",
        "correlationId": "not-a-uuid",
        "currency": "XXX",
        "description": "x" * 501,
        "metadata": {str(n): n for n in range(51)},
        "processor": "nobody",
        "scheduledFor": "tomorrow",
        "priority": 10,
        "surprise": 1,
    }

    status, said = await send(api, json.dumps(body).encode())

    assert status == 422
    assert faults(said).keys() == body.keys()


async def test_a_missing_amount_is_named(api: Api):
    _, said = await send(api, b"{}")

    assert faults(said) == {"amount": "is required"}


async def test_all_faults_are_named_beside_a_number_out_of_range(api: Api):
    status, said = await send(api, b'{"amount": 1e400, "metadata": {"a": 1e400}, "surprise": 1}')

    assert status == 422
    assert {"surprise", "amount"} <= faults(said).keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("correlationId", "1"),
        ("correlationId", 7),
        ("correlationId", ""),
        ("description", "x" * 501),
        ("description", "a\0b"),
        ("metadata", {str(n): n for n in range(51)}),
        ("metadata", {"nested": {"a": 1}}),
        ("metadata", {"list": [1]}),
        ("metadata", {"": 1}),
        ("metadata", {"x" * 101: 1}),
        ("metadata", {"a\0": 1}),
        ("metadata", {"a": "\0"}),
        ("metadata", {"a": 2**64}),
        ("metadata", {"a": -(2**63) - 1}),
        ("metadata", {"a": 10**400}),
        ("metadata", []),
        ("metadata", "text"),
        ("processor", "nobody"),
        ("processor", "\0"),
        ("processor", ""),
        ("scheduledFor", "2025-07-15T12:34:56"),
        ("scheduledFor", "9999-12-31T23:59:59Z"),
        ("scheduledFor", "0001-01-01T00:00:00+14:00"),
        ("scheduledFor", "soon"),
        ("scheduledFor", 12),
        ("priority", -1),
        ("priority", 10),
        ("priority", 1.5),
        ("priority", "high"),
        ("priority", True),
        ("priority", 2**70),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_field_that_is_not_acceptable_is_named(api: Api, tenant, field, value):
    status, said = await send(api, json.dumps({"amount": "1.00", field: value}).encode())

    assert status == 422
    assert faults(said).keys() == {field}
    assert await accepted(tenant) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        {str(n): n for n in range(50)},
        {"above 2^53": 2**53 + 1, "below": -(2**53) - 1},
        {"largest": 2**63 - 1, "least": -(2**63)},
        {"float": 0.1, "tiny": 1e-300, "large": 1e20, "none": None, "yes": True},
        {"text": 'ünïcødé 🎉 \u2028 " \\ </script>', "six characters": "\\u0000"},
    ],
    ids=lambda metadata: next(iter(metadata)),
)
async def test_metadata_is_returned_as_it_was_sent(api: Api, metadata):
    payment = await api.pay(metadata=metadata)

    found = await api.detail(payment["correlationId"])

    assert found["metadata"] == metadata


# -- Batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items", [b"", b"{}", b'{"items": []}', b'{"items": 1}', b'{"items": null}', b'{"itmes": []}', b"[]"]
)
async def test_a_batch_without_items_is_refused(api: Api, items):
    status, _ = await send(api, items, "/payments/batch")

    assert status in (400, 422)


async def test_more_than_a_thousand_items_are_422(api: Api, tenant):
    status, said = await send(api, json.dumps({"items": [{"amount": "1.00"}] * 1001}).encode(), "/payments/batch")

    assert status == 422
    assert "items" in faults(said)
    assert await accepted(tenant) == 0


# -- Media types and methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonx", ""]
)
@pytest.mark.parametrize("path", ["/payments", "/payments/batch"])
async def test_a_body_of_another_type_is_415(api: Api, path, kind):
    async with api.post(path, data=b'{"amount": "1.00"}', headers={"Content-Type": kind}) as response:
        assert response.status == 415
        await problem(response)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json ;q=1"])
async def test_every_spelling_of_the_content_type_of_json_is_accepted(api: Api, kind):
    async with api.post("/payments", data=b'{"amount": "1.00"}', headers={"Content-Type": kind}) as response:
        assert response.status == 202


ID = "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/payments", {"GET", "POST"}),
        ("PATCH", "/payments", {"GET", "POST"}),
        ("GET", "/payments/batch", {"POST"}),
        ("PUT", f"/payments/{ID}", {"GET"}),
        ("POST", f"/payments/{ID}/status", {"GET"}),
        ("GET", f"/payments/{ID}/cancel", {"POST"}),
        ("POST", "/payments-summary", {"GET"}),
        ("GET", "/purge-payments", {"POST"}),
        ("POST", "/health", {"GET"}),
        ("OPTIONS", "/payments", {"GET", "POST"}),
    ],
)
async def test_a_method_that_an_address_does_not_take_is_405(api: Api, method, path, allowed):
    async with api.session.request(method, path) as response:
        assert response.status == 405
        await problem(response)
        assert allowed <= set(response.headers["Allow"].split(", "))


# -- Queries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("status=paid", "status"),
        ("status=%00", "status"),
        ("from=yesterday", "from"),
        ("to=2025-13-01T00:00:00Z", "to"),
        ("from=0001-01-01T00:00:00%2B14:00", "from"),
        ("to=9999-12-31T23:59:59-14:00", "to"),
        ("from=%00", "from"),
        ("cursor=x", "cursor"),
        ("cursor=%FF%FE", "cursor"),
        ("cursor=MjAyNS0wNy0xNVQxMjozNDo1NiswMDowMCA5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "cursor"),
        ("processor=%00", "processor"),
        ("colour=red", "colour"),
    ],
)
async def test_an_invalid_query_parameter_is_422_and_named(api: Api, query, field):
    async with api.get(f"/payments?{query}") as response:
        assert response.status == 422
        assert faults(await problem(response)).keys() == {field}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=1", "to"),
        ("to=nan", "to"),
        ("from=0001-01-01T00:00:00%2B14:00", "from"),
        ("currency=XXX", "currency"),
        ("currency=%00", "currency"),
    ],
)
async def test_an_invalid_window_is_422_and_never_zeros(api: Api, query, field):
    async with api.get(f"/payments-summary?{query}") as response:
        assert response.status == 422
        assert faults(await problem(response)).keys() == {field}


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("side", ["from", "to"])
async def test_a_window_may_have_extreme_bounds(api: Api, side, end, default):
    async with api.get("/payments-summary", params={side: end}) as response:
        assert response.status == 200
        assert (await response.json())["default"]["totalRequests"] == 0


# -- Headers and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefer", ["wait=²", "wait=", "wait", "wait=-1", "wait=1e9", "wait=" + "9" * 5000, ",;=", "respond-async"]
)
async def test_an_invalid_preference_is_ignored_or_bounded(api: Api, prefer):
    head = f"POST /payments HTTP/1.1\nHost: localhost\nAuthorization: Bearer {api.key}\nContent-Type: application/json\nConnection: close\n"
    body = b'{"amount": "1.00", "scheduledFor": "2020-01-01T00:00:00Z"}'

    sending = raw(api, f"{head}Prefer: {prefer}\nContent-Length: {len(body)}\n\n", body)
    if prefer.endswith("9999"):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sending, 0.3)  # it waits, for at most 30 s
        return

    assert (await sending).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    "given", ["short", "x" * 65, "a b c d e f", "abc%0d%0aSet-Cookie: a=b", "<script>alert(1)", "üüüüüüüü"]
)
async def test_an_invalid_request_id_is_replaced(api: Api, given):
    answer = await raw(api, f"GET /health/live HTTP/1.1\nHost: localhost\nX-Request-Id: {given}\nConnection: close\n\n")

    assert b"x-request-id: " in answer.lower()
    assert given.encode("latin1") not in answer


async def test_a_request_id_of_the_callers_own_comes_back(api: Api):
    async with api.get("/health/live", headers={"X-Request-Id": "order-4711.a_B"}) as response:
        assert response.headers["X-Request-Id"] == "order-4711.a_B"


@pytest.mark.parametrize("line", ["X-Request-Id: abcdefgh\rSet-Cookie: a=b", "Idempotency-Key: a\0b", "X\x01Y: 1"])
async def test_a_header_with_control_characters_ends_the_connection_or_the_request(api: Api, line):
    answer = await raw(api, f"GET /health/live HTTP/1.1\nHost: localhost\n{line}\nConnection: close\n\n")

    assert b"set-cookie" not in answer.lower()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))


@pytest.mark.parametrize("given", ["x" * 256, "a\tb", "\x7f"])
async def test_an_idempotency_key_that_is_too_long_or_not_printable_is_422(api: Api, tenant, given):
    body = b'{"amount": "1.00"}'
    head = f"POST /payments HTTP/1.1\nHost: localhost\nAuthorization: Bearer {api.key}\nContent-Type: application/json\nConnection: close\n"

    answer = await raw(api, f"{head}Idempotency-Key: {given}\nContent-Length: {len(body)}\n\n", body)

    assert answer.split()[1] in (b"422", b"400")
    assert await accepted(tenant) == 0


@pytest.mark.parametrize(
    "name",
    [
        *(
            "1",
            "%00",
            "%0d%0aSet-Cookie:%20a=b",
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e",
            "%FF",
            "null",
            "x" * 8000,
            "%F0%9F%8E%89",
        ),
        *("' OR 1=1 --", "%27%20OR%201=1", "{{7*7}}", "urn:uuid:", ID[:-1], ID + "0"),
    ],
    ids=lambda name: name[:20],
)
async def test_a_path_that_names_no_payment_is_404(api: Api, name):
    path = f"/payments/{name.replace(' ', '%20')}"
    rest = f"HTTP/1.1\nHost: localhost\nAuthorization: Bearer {api.key}\nConnection: close\n\n"

    answers = [await raw(api, f"GET {path}{tail} {rest}") for tail in ("", "/status", "/events?wait=0")]

    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"set-cookie" not in head.lower()
        assert name[:20].encode() not in body or name == "1"


@pytest.mark.parametrize(
    "path", ["/payments/../admin/", "//payments", "/payments/", "/payments//status", "/.env", "/payments;x"]
)
async def test_other_paths_are_404_too(api: Api, path):
    answer = await raw(
        api, f"GET {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {api.key}\nConnection: close\n\n"
    )

    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_a_path_longer_than_any_address_is_refused(api: Api):
    answer = await raw(api, f"GET /payments/{'x' * 200_000} HTTP/1.1\nHost: localhost\nConnection: close\n\n")

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "))


@pytest.mark.parametrize("host", ["evil.example", "localhost@evil.example", "evil.example:80", "[", "a b"])
async def test_links_in_answers_never_come_from_the_host_header(api: Api, host):
    body = b'{"amount": "1.00"}'
    head = f"POST /payments HTTP/1.1\nHost: {host}\nAuthorization: Bearer {api.key}\nContent-Type: application/json\nConnection: close\n"

    answer = await raw(api, f"{head}X-Forwarded-Host: evil.example\nContent-Length: {len(body)}\n\n", body)

    assert b"evil" not in answer
    assert answer.startswith((b"HTTP/1.1 202 ", b"HTTP/1.1 400 "))


async def test_a_page_is_not_served_under_a_foreign_host(api: Api):
    answer = await raw(api, "GET /login HTTP/1.1\nHost: evil.example\nConnection: close\n\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"evil" not in answer


# -- Other tenants and keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "tail"),
    [("GET", ""), ("GET", "/status"), ("GET", "/events?wait=0"), ("POST", "/cancel"), ("GET", "/live?token=1.x")],
)
async def test_a_payment_of_another_tenant_is_not_found(api: Api, stranger: Api, method, tail):
    theirs = (await stranger.pay())["correlationId"]

    found = await answer_without_id(api, method, theirs, tail)

    assert found == await answer_without_id(api, method, str(uuid4()), tail)
    assert found[0] == 404
    assert (await stranger.status(theirs))["status"] == "queued"


async def answer_without_id(api: Api, method: str, name: str, tail: str) -> tuple[int, dict[str, str], bytes]:
    async with api.session.request(method, f"/payments/{name}{tail}") as response:
        passing = ("X-Request-Id", "Date")
        headers = {key: value for key, value in response.headers.items() if key.title() not in passing}
        return response.status, headers, (await response.read()).replace(name.encode(), b"ID")


async def test_a_link_of_one_payment_shows_no_other(api: Api, stranger: Api):
    link = (await stranger.pay())["liveUrl"]
    mine = (await api.pay())["correlationId"]

    async with stranger.get(f"/payments/{mine}/events?wait=0&token={link.partition('token=')[2]}") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"null", "null"), (b"[]", "an array"), (b'"x"', "a text"), (b"1", "a number"), (b"true", "a boolean")],
)
async def test_a_wrong_type_is_named_in_terms_of_json(api: Api, body: bytes, kind: str):
    status, said = await send(api, body)

    assert (status, said["errors"]) == (422, [{"field": "body", "message": f"wants an object, got {kind}"}])
