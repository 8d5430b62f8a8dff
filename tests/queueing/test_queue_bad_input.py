"""Invalid requests to the queue get the errors of the contract, affect no other request and store nothing."""

import json
from uuid import uuid4

import pytest

from queueing.broker.ids import public_partition_id
from tests.queueing.mq import ack_of, payloads

PUSH, ACK, BATCH, TRANSACTION = "/api/v1/push", "/api/v1/ack", "/api/v1/ack/batch", "/api/v1/transaction"
IDS = {"transactionId": "t", "partitionId": "p"}


async def refusal(mq, path: str, body: bytes | str | dict | list, status: int = 400) -> str:
    """The `error` of the answer."""
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    answer = await mq.call("POST", path, data=data, headers={"Content-Type": "application/json"}, status=status)
    assert answer["status"] == status
    return answer["error"]


@pytest.mark.parametrize("path", [PUSH, ACK, BATCH, TRANSACTION])
async def test_an_empty_body(mq, path):
    assert await refusal(mq, path, b"") == "Empty request body"


@pytest.mark.parametrize("path", [PUSH, ACK, BATCH, TRANSACTION])
@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b'{"items":[}', b'{"items":[{"queue":"q","payload":NaN}]}', b"\xff\xfe", b'{"a":"\xff"}'],
    ids=["cut", "nonsense", "brackets", "NaN", "not UTF-8", "not UTF-8 inside"],
)
async def test_a_body_that_is_no_json(mq, path, body):
    assert (await refusal(mq, path, body)).startswith("Invalid JSON: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "items array is required"),
        ({"items": None}, "items array is required"),
        ({"items": "all"}, "items array is required"),
        ({"items": [{}]}, "Queue must be a string"),
        ({"items": [{"queue": 1}]}, "Queue must be a string"),
        ({"items": [{"queue": None}]}, "Queue must be a string"),
        ({"items": [{"queue": "q", "partition": 1}]}, "Partition must be a string"),
        ({"items": [{"queue": "q", "transactionId": 1}]}, "TransactionId must be a string"),
        ({"items": [{"queue": "q", "traceId": 1}]}, "TraceId must be a string"),
        ({"items": [{"queue": "q", "traceId": "x"}]}, "TraceId must be a UUID"),
        ({"items": [{"queue": ""}]}, "Queue must not be empty"),
        ({"items": [{"queue": "q", "partition": ""}]}, "Partition must not be empty"),
        ({"items": [{"queue": "q" * 256}]}, "Queue has 256 characters; at most 255"),
        ({"items": [{"queue": "q", "partition": "p" * 256}]}, "Partition has 256 characters; at most 255"),
        ({"items": [{"queue": "q", "transactionId": "t" * 256}]}, "TransactionId has 256 characters; at most 255"),
        ({"items": [{"queue": "a\0b"}]}, "Queue contains the character NUL, which cannot be stored"),
        ({"items": [{"queue": "q", "transactionId": "\0"}]}, "TransactionId contains the character NUL, which cannot be stored"),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_push_with_a_wrong_item_stores_none_of_them(mq, body, words):
    if isinstance(body.get("items"), list):
        body = {"items": [{"queue": "good", "payload": 1}, *body["items"]]}

    said = await refusal(mq, PUSH, body)

    assert said == words
    assert await mq.sql("SELECT FROM queueing_message WHERE tenant_id = %s", mq.tenant_id) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "transactionId is required"),
        ({"transactionId": 1, "partitionId": "p"}, "transactionId is required"),
        ({"transactionId": "t"}, "partitionId is required to ensure message uniqueness"),
        ({"transactionId": "t", "partitionId": None}, "partitionId is required to ensure message uniqueness"),
    ],
    ids=repr,
)
async def test_an_ack_of_nothing(mq, body, words):
    assert await refusal(mq, ACK, body) == words


EACH = "Each acknowledgment must have a valid {}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "acknowledgments array is required"),
        ({"acknowledgments": {}}, "acknowledgments array is required"),
        ({"acknowledgments": [{"partitionId": "p"}]}, EACH.format("transactionId string")),
        ({"acknowledgments": [{**IDS, "transactionId": 1}]}, EACH.format("transactionId string")),
        ({"acknowledgments": [{"transactionId": "t"}]}, EACH.format("partitionId string to ensure message uniqueness")),
        ({"acknowledgments": [{**IDS, "partitionId": []}]}, EACH.format("partitionId string to ensure message uniqueness")),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_batch_with_an_ack_of_nothing(mq, body, words):
    assert await refusal(mq, BATCH, body) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "operations array required"),
        ({"operations": "push"}, "operations array required"),
        ({"operations": []}, "operations array cannot be empty"),
        ({"operations": [{"type": "drop"}]}, "type wants push or ack"),
        ({"operations": [{"type": "ack"}]}, "transactionId is required"),
        ({"operations": [{"type": "ack", "transactionId": "t"}]}, "partitionId is required to ensure message uniqueness"),
        ({"operations": [{"type": "push", "items": [{"queue": 1}]}]}, "Queue must be a string"),
        ({"operations": [{"type": "push", "items": [{"queue": "q", "transactionId": 5}]}]}, "TransactionId must be a string"),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_transaction_that_cannot_be_understood(mq, body, words):
    assert await refusal(mq, TRANSACTION, body) == words


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 2**70, "60", 1.5])
async def test_a_lease_extended_by_a_strange_time(mq, seconds):
    await refusal(mq, f"/api/v1/lease/{uuid4()}/extend", {"seconds": seconds})


@pytest.mark.parametrize(
    "query",
    ["batch=0", "batch=-1", "batch=1.5", "batch=ten", "wait=yes", "autoAck=2", "timeout=-5&wait=1", "partitions=0"],
)
async def test_a_pop_with_a_strange_query(mq, queue, query):
    body = await mq.call("GET", f"/api/v1/pop/queue/{queue}?{query}", status=422)

    assert query.split("=")[0] in body["error"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("subscriptionFrom=yesterday", "subscriptionFrom wants"),
        ("subscriptionFrom=0001-01-01T00:00:00%2B05:00", "subscriptionFrom wants"),
        ("subscriptionFrom=9999-12-31T23:59:59-05:00", "subscriptionFrom wants"),
        ("subscriptionMode=some", "subscriptionMode wants"),
        ("consumerGroup=" + "g" * 256, "consumerGroup has 256"),
        ("consumerGroup=a%00b", "consumerGroup contains the character NUL"),
    ],
)
async def test_an_invalid_group(mq, queue, query, words):
    body = await mq.call("GET", f"/api/v1/pop/queue/{queue}?{query}", status=400)

    assert words in body["error"]


# -- Names ---------------------------------------------------------------------------------------------------------

NAMES = [
    "a/b/c",
    "dots.and.more",
    "100%",
    "50%25",
    "späß",
    "日本",
    "🎉",
    "a b",
    "a?b#c",
    "a+b",
    "x" * 255,
    "ü" * 255,
    "'; --",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:12])
async def test_names_are_stored_unchanged(mq, queue, name):
    from urllib.parse import quote

    from yarl import URL

    full = f"{queue}{name}"[:255]
    await mq.push_items([{"queue": full, "partition": name, "transactionId": name, "payload": 1}])
    path = f"{mq.api.address}/api/v1/pop/queue/{quote(full, safe='/')}/partition/{quote(name, safe='/')}"

    async with mq.api.get(URL(path, encoded=True), params={"consumerGroup": name}) as response:
        popped = await response.json()
    [verdict] = [await mq.ack(message) for message in popped["messages"]]

    assert (popped["queue"], popped["partition"], popped["consumerGroup"]) == (full, name, name)
    assert popped["messages"][0]["transactionId"] == name
    assert (verdict["success"], verdict["queueName"], verdict["partitionName"]) == (True, full, name)


# -- Payloads ------------------------------------------------------------------------------------------------------

PAYLOADS = [
    b"9007199254740993",
    b"-0.0",
    b"1e400",
    b"123456789012345678901234567890.123456789012345678901234567890",
    b'""',
    b"{}",
    b"[]",
    b"null",
    b'"\\u0000"',
    b'{"a":1,"a":2}',
    b'"\\ud83c\\udf89"',
    b'{ "kept" :  "as it was sent" }',
    b"[" * 200 + b"]" * 200,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda p: repr(p[:24]))
async def test_a_payload_is_stored_byte_for_byte(mq, queue, payload):
    body = b'{"items":[{"queue":"%s","payload":%s}]}' % (queue.encode(), payload)
    await mq.call("POST", PUSH, data=body, status=201)

    async with mq.api.get(f"/api/v1/pop/queue/{queue}") as response:
        text = await response.read()

    assert b'"data":' + payload + b"," in text


async def test_a_missing_payload_is_null(mq, queue):
    await mq.push_items([{"queue": queue}])

    assert await mq.data(queue) == [None]


@pytest.mark.parametrize("payload", [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\x01"', b"01", b"'a'", b""])
async def test_a_payload_that_is_no_json_is_refused(mq, queue, payload):
    body = b'{"items":[{"queue":"%s","payload":%s}]}' % (queue.encode(), payload)

    assert (await refusal(mq, PUSH, body)).startswith("Invalid JSON: ")


async def test_a_name_with_half_a_character_is_refused(mq):
    assert (await refusal(mq, PUSH, b'{"items":[{"queue":"\\ud800"}]}')).startswith("Invalid JSON: ")


async def test_deeply_nested_json_is_refused(mq, queue):
    deep = b"[" * 1_000_000 + b"]" * 1_000_000

    said = await refusal(mq, PUSH, b'{"items":[{"queue":"%s","payload":%s}]}' % (queue.encode(), deep))

    assert said.startswith("Invalid JSON: ")


async def test_ten_mebibytes_are_too_large(mq, queue):
    body = json.dumps({"items": [{"queue": queue, "payload": "x" * 10 * 2**20}]})

    assert "at most" in await refusal(mq, PUSH, body, 413)


async def test_a_large_message_below_the_limit_passes(mq, queue):
    await mq.push(queue, "x" * 7 * 2**20)

    assert [len(data) for data in await mq.data(queue)] == [7 * 2**20]


# -- Unknown and other people's ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "partition",
    [
        "",
        "nonsense",
        "6c014bfb-4fc2-4645-bc61-336c4ab44f51",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-8fff-bfff-ffffffffffff",
    ],
)
async def test_an_ack_in_an_unknown_partition(mq, partition):
    for status in ("completed", "failed"):
        body = {"transactionId": "t", "partitionId": partition, "leaseId": str(uuid4()), "status": status}
        [verdict] = await mq.call("POST", ACK, json=body, status=200)
        assert (verdict["success"], verdict["queueName"]) == (False, None)


async def test_another_tenants_ids_are_as_unknown_as_any(mq, foreign, queue):
    await mq.push(queue, 1)
    [message] = (popped := await mq.pop(queue))["messages"]
    number = int(message["partitionId"].replace("-", "")[16:], 16) & ((1 << 62) - 1)
    forged = public_partition_id(foreign.tenant_id, number)

    plain = await foreign.ack(message)
    guessed = await foreign.ack(message, partitionId=forged)
    in_a_transaction = await foreign.transact({"type": "ack", **ack_of(message)}, leases=[popped["leaseId"]])

    assert [plain["success"], guessed["success"], in_a_transaction["success"]] == [False] * 3
    assert {plain["queueName"], guessed["queueName"]} == {None}
    assert (await mq.ack(message))["success"]


async def test_ten_thousand_acks_with_every_fault_in_one_call(mq, queue):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]
    bad = [{**ack_of(message), "transactionId": f"t{n}"} for n in range(9999)]

    verdicts = await mq.call("POST", BATCH, json={"acknowledgments": [*bad, ack_of(message)]}, status=200)

    assert [v["index"] for v in verdicts] == list(range(10_000))
    assert sum(v["success"] for v in verdicts) == 1
    assert verdicts[-1]["success"]


async def test_a_key_without_the_right_to_write_may_not(server, tenant, queue):
    from tests.conftest import Api, make_key
    from tests.queueing.mq import Mq

    async with Api(server, await make_key(tenant, "read")) as api:
        reader = Mq(api, tenant.pk)
        await reader.call("POST", PUSH, json={"items": [{"queue": queue}]}, status=403)
        await reader.call("GET", f"/api/v1/pop/queue/{queue}", status=403)
        await reader.call("POST", ACK, json=IDS, status=403)
    async with Api(server, "nobody's") as api:
        await Mq(api, tenant.pk).call("POST", PUSH, json={"items": [{"queue": queue}]}, status=401)


async def test_a_page_of_any_origin_may_call_the_api(mq, queue):
    async with mq.api.session.options(PUSH) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, "*")
    await mq.push(queue, 1)
    async with mq.api.get(f"/api/v1/pop/queue/{queue}") as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert payloads(await response.json()) == [1]
