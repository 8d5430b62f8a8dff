"""What the OpenAPI document says of the payments API that no code says of itself: the hot routes, answers, problems."""

from typing import Any

from payments.intake.requests import LIST_FIELDS, LIST_LIMIT, LONGEST_WAIT, PAGE_AT_MOST, PaymentRequest
from payments.money import CURRENCIES
from payments.states import Status
from registry.edge.api import api
from registry.edge.parameters import TEXT, WHEN, Query, choice, parameters, whole

KEYLESS: list[dict[str, list[str]]] = [{"key": []}, {}]  # a key, or nothing: then as the open tenant
PAGE: Query = {
    "limit": whole(LIST_LIMIT, least=1, most=PAGE_AT_MOST),
    "cursor": {**TEXT, "description": "`next` of a page"},
}
LIST: Query = {"status": choice(*Status.values), "processor": TEXT, **WHEN, **PAGE}
SUMMARY: Query = {**WHEN, "currency": choice(*sorted(CURRENCIES))}
EVENTS: Query = {
    "after": whole(0, most=2**31 - 1),
    "wait": {**whole(20, most=LONGEST_WAIT), "description": "seconds"},
    "token": {**TEXT, "description": "of the payment's link, in place of a key"},
}

_JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/PaymentRequest"}}}
_PROBLEMS = {
    str(status): {"description": text, "content": {"application/problem+json": {}}}
    for status, text in (
        (400, "Not JSON"),
        (401, "No valid key"),
        (403, "The key lacks the scope"),
        (404, "No such payment here"),
        (409, "In the way: other content under the same id, or no longer queued"),
        (413, "Body above the limit"),
        (415, "Not application/json"),
        (422, "Fields not acceptable"),
        (429, "Rate limit"),
        (503, "Nothing can take it at the moment; Retry-After says when to come back"),
    )
}


def described(good: str, *problems: int, query: Query | None = None, accepted: str = "") -> dict[str, Any]:
    """What ninja cannot know of an operation that answers by itself: `good` is its 200, `accepted` its 202."""
    texts = {200: good, 202: accepted}
    answers = {n: {"description": text, "content": {"application/json": {}}} for n, text in texts.items() if text}
    return {
        "security": KEYLESS,
        "responses": answers | {status: _PROBLEMS[str(status)] for status in (401, 403, *problems, 429, 503)},
        "parameters": parameters(query or {}),
    }


api.describe(
    "/payments",
    "post",
    {
        "tags": ["payments"],
        "operationId": "accept_payment",
        "security": KEYLESS,
        "summary": "Accept a payment: 202 once it is durable",
        "requestBody": {"required": True, "content": _JSON},
        "responses": {
            "202": {"description": "Durable"},
            "200": {"description": "Settled within `Prefer: wait`"},
            **_PROBLEMS,
        },
    },
    PaymentRequest,
)
api.describe(
    "/payments/batch",
    "post",
    {
        "tags": ["payments"],
        "operationId": "accept_batch",
        "security": KEYLESS,
        "summary": "Accept up to 1,000 payments, one verdict per item",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["items"],
                        "properties": {
                            "items": {
                                "type": "array",
                                "maxItems": 1000,
                                "items": {"$ref": "#/components/schemas/PaymentRequest"},
                            }
                        },
                    }
                }
            },
        },
        "responses": {"200": {"description": "One verdict per item, in order"}, **_PROBLEMS},
    },
)
api.describe(
    "/payments",
    "get",
    {
        "tags": ["payments"],
        "operationId": "browse_payments",
        "security": KEYLESS,
        "summary": "A page of payments with the total; text/csv or application/x-ndjson stream everything",
        "parameters": parameters({name: LIST[name] for name in LIST_FIELDS}),
        "responses": {
            "200": {"description": "A page"},
            **{k: v for k, v in _PROBLEMS.items() if k in ("401", "403", "422", "429")},
        },
    },
)
