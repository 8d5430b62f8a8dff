"""CORS: pages of any origin may use the queue with a key; preflights are answered and responses are readable."""

import re
from typing import Any

import pytest

from queueing.urls import urlpatterns
from tests.conftest import Api

PUSH, ACK = "/api/v1/push", "/api/v1/ack"

ROUTES = [str(p.pattern) for p in urlpatterns if str(p.pattern).startswith("api/v1/")]
ASKED = {
    "Origin": "https://shop.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-queen-tenant,idempotency-key",
}


async def test_every_address_answers_a_preflight_without_a_key(server: str):
    answers: dict[str, Any] = {}
    async with Api(server) as browser:
        for route in ROUTES:
            async with browser.session.options("/" + re.sub(r"<[^>]+>", "x", route), headers=ASKED) as response:
                answers[route] = response.status, response.headers

    assert len(answers) > 40
    assert {route: status for route, (status, _) in answers.items() if status != 204} == {}
    for _, headers in answers.values():
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "POST" in headers["Access-Control-Allow-Methods"]
        for name in ("authorization", "content-type", "x-queen-tenant", "idempotency-key"):
            assert name in headers["Access-Control-Allow-Headers"].lower()


async def test_a_preflight_asks_for_names_only(server: str):
    strange = {**ASKED, "Access-Control-Request-Headers": "x\u00e9, <b>"}
    async with Api(server) as browser, browser.session.options(PUSH, headers=strange) as response:
        assert response.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"


async def test_a_preflight_may_have_a_small_body_and_no_large_one(server: str):
    async with Api(server) as browser:
        async with browser.session.options(PUSH, data=b"x" * 100) as small:
            assert small.status == 204
        async with browser.session.options(PUSH, data=b"x" * 1_000_000) as large:
            assert (large.status, large.headers["Access-Control-Allow-Origin"]) == (413, "*")


async def test_a_page_reads_the_answer_and_every_refusal(mq, server: str, queue: str):
    origin = {"Origin": "https://shop.example"}
    item = {"items": [{"queue": queue, "payload": 1}]}
    calls: list[tuple[int, str, dict[str, Any], dict[str, str]]] = [
        (201, PUSH, {"json": item}, {}),
        (400, PUSH, {"data": b"{"}, {}),
        (400, PUSH, {"json": item}, {"Host": "a b"}),
        (401, PUSH, {"json": item}, {"Authorization": "Bearer rk_0123456789ab_SECRET"}),
        (413, PUSH, {"data": b" " * 9_000_000}, {}),
        (415, PUSH, {"data": _pieces()}, {"Content-Encoding": "gzip"}),
        (405, "/api/v1/pop", {"json": item}, {}),
        (400, ACK, {"json": {}}, {}),
    ]
    for expected, path, body, headers in calls:
        async with mq.api.post(path, **body, headers=origin | headers) as response:
            assert response.status == expected, (path, await response.text())
            assert response.headers["Access-Control-Allow-Origin"] == "*", expected
            assert response.headers["Access-Control-Expose-Headers"] == "*"


async def _pieces() -> Any:
    yield b"x"


@pytest.mark.parametrize("path", ["/payments", "/purge-payments"])
async def test_the_payments_are_not_shared_with_other_pages(server: str, path: str):
    async with Api(server) as browser, browser.session.options(path, headers=ASKED) as response:
        assert (response.status, "Access-Control-Allow-Origin" in response.headers) == (405, False)
