"""API of events; webhooks.py delivers them."""

import fnmatch

from sandbox.endpoints import Call, endpoint
from sandbox.errors import invalid
from sandbox.forms import FLAG, PAGE, SPAN, TEXT, Many
from sandbox.state import Thing, listing

KEPT = 30 * 24 * 3600  # seconds; older events are not listed, as at Stripe


@endpoint("GET", "/v1/events/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("event", name)


@endpoint("GET", "/v1/events", {**PAGE, "created": SPAN, "delivery_success": FLAG, "type": TEXT, "types": Many(TEXT)})
def list_all(call: Call) -> Thing:
    """Events; `delivery_success=false` selects those not delivered to every endpoint."""
    params = call.params
    if "type" in params and "types" in params:
        raise invalid("You may only specify one of these parameters: type, types.")
    types = params.get("types") or [params.get("type", "*")]
    oldest = call.state.now() - KEPT

    def keep(event: Thing) -> bool:
        delivered = event["pending_webhooks"] == 0
        return (
            event["created"] > oldest
            and params.get("delivery_success", delivered) == delivered
            and any(fnmatch.fnmatchcase(event["type"], pattern) for pattern in types)
        )

    return listing(call.state, "event", "/v1/events", params, keep)
