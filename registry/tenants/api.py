"""API of the audit trail: verification of a tenant's chain, for keys with the admin scope."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from registry.data.cache import Cached
from registry.edge.api import api, json_response
from registry.tenants import audit_chain
from registry.tenants.access import authorize

FRESH = 1.0  # seconds that a result is cached: the cost grows with the length of the chain
KEPT = 1_000  # tenants

_verdicts = Cached(audit_chain.verify, fresh=FRESH, kept=KEPT)


@api.get(
    "/audit/verify",
    tags=["audit"],
    summary="Verify the tenant's audit trail",
    openapi_extra={
        "responses": {
            200: {
                "description": "The result, and the head of the chain to store elsewhere",
                "content": {"application/json": {}},
            },
            **{
                status: {"description": text, "content": {"application/problem+json": {}}}
                for status, text in (
                    (401, "No valid key"),
                    (403, "The key lacks the admin scope"),
                    (429, "Rate limit"),
                    (503, "The database is unavailable"),
                )
            },
        }
    },
)
async def verify(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "admin")
    verdict = await _verdicts.get(principal.tenant_id)
    said: dict[str, Any] = {"sound": verdict.sound, "entries": verdict.entries, "head": verdict.head}
    if not verdict.sound:
        said |= {"brokenAt": verdict.position, "fault": verdict.fault}
    return json_response(said, headers=headers)


api.add_examples(__file__)
