"""The sandbox accepts no parameter that Stripe's library does not know: nothing works here that would be refused there."""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import stripe as library

from sandbox import app
from sandbox.endpoints import ENDPOINTS
from sandbox.forms import Many

PARAMS = Path(library.__file__).parent / "params"
NAMES = {  # where the library's file is not named after the path
    "POST /v1/payment_intents": "payment_intent_create",
    "GET /v1/payment_intents/search": "payment_intent_search",
    "POST /v1/payment_intents/{}": "payment_intent_update",
    "POST /v1/payment_intents/{}/confirm": "payment_intent_confirm",
    "POST /v1/payment_intents/{}/capture": "payment_intent_capture",
    "POST /v1/payment_intents/{}/cancel": "payment_intent_cancel",
    "GET /v1/payment_intents": "payment_intent_list",
    "POST /v1/refunds": "refund_create",
    "GET /v1/refunds": "refund_list",
    "GET /v1/events": "event_list",
    "GET /v1/charges": "charge_list",
    "POST /v1/charges/{}": "charge_update",
    "GET /v1/balance_transactions": "balance_transaction_list",
    "POST /v1/disputes/{}": "dispute_update",
    "GET /v1/disputes": "dispute_list",
    "POST /v1/customers": "customer_create",
    "POST /v1/customers/{}": "customer_update",
    "GET /v1/customers": "customer_list",
    "POST /v1/payment_methods": "payment_method_create",
    "POST /v1/payment_methods/{}/attach": "payment_method_attach",
    "POST /v1/accounts": "account_create",
    "POST /v1/accounts/{}": "account_update",
    "POST /v1/account_links": "account_link_create",
    "GET /v1/transfers": "transfer_list",
    "POST /v1/products": "product_create",
    "POST /v1/products/{}": "product_update",
    "GET /v1/products": "product_list",
    "POST /v1/prices": "price_create",
    "POST /v1/prices/{}": "price_update",
    "GET /v1/prices": "price_list",
    "POST /v1/invoices/{}/pay": "invoice_pay",
    "GET /v1/invoices": "invoice_list",
    "POST /v1/subscriptions": "subscription_create",
    "POST /v1/subscriptions/{}": "subscription_update",
    "GET /v1/subscriptions": "subscription_list",
    "DELETE /v1/subscriptions/{}": "subscription_cancel",
    "POST /v1/checkout/sessions": "checkout.session_create",
    "POST /v1/billing_portal/sessions": "billing_portal.session_create",
}

OF_BROWSERS = {"client_secret"}  # Stripe.js sends it with the publishable key


def classes(file: str) -> dict[str, dict[str, str]]:
    """Of every typed dict of the library's file: its fields, as they are written."""
    folder, _, name = file.rpartition(".")
    tree = ast.parse((PARAMS / folder / f"_{name}_params.py").read_text())
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = {field.target.id: ast.unparse(field.annotation) for field in node.body
                   if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)}  # fmt: skip
            found[node.name] = {**own, **found.get(f"_{node.name}Base", {})}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):  # with names that are words of Python
            fields = [ast.literal_eval(key) for key in node.value.args[1].keys]  # type: ignore
            found[node.targets[0].id] = dict.fromkeys(fields, "")  # type: ignore[attr-defined]
    return found


def unknown(spec: Mapping[str, Any], fields: Mapping[str, str], known: Mapping[str, dict[str, str]]) -> Iterator[str]:
    for name, kind in spec.items():
        if name not in fields:
            yield name
            continue
        inner = kind.kind if isinstance(kind, Many) else kind
        if isinstance(inner, Mapping):
            nested = [known[one] for one in re.findall(r"\w+", fields[name]) if one in known]
            if nested:
                yield from (
                    f"{name}[{one}]" for one in unknown(inner, {k: v for n in nested for k, v in n.items()}, known)
                )


def endpoints() -> dict[str, Mapping[str, Any]]:
    assert app.OBJECTS
    return {
        f"{known.method} {known.path.pattern.replace('([A-Za-z0-9_]+)', '{}').replace('\\', '')}": known.spec
        for known in ENDPOINTS
    }


@pytest.mark.parametrize("request_", sorted(NAMES))
def test_every_parameter_is_stripes(request_: str):
    spec = endpoints()[request_]
    known = classes(NAMES[request_])
    top = known[next(name for name in reversed(known) if name.endswith("Params") and "_" not in name)]

    assert [name for name in unknown(spec, top, known) if name not in OF_BROWSERS] == []


def test_every_request_with_parameters_is_compared():
    plain = {"expand", "limit", "starting_after", "ending_before", "created"}
    with_parameters = {name for name, spec in endpoints().items() if spec.keys() - plain}

    left = with_parameters - NAMES.keys()
    assert left <= {
        "GET /v1/application_fees",
        "GET /v1/checkout/sessions",
        "GET /v1/customers/{}/payment_methods",
        "GET /v1/payment_intents/{}",
        "GET /v1/payment_methods",
        "POST /v1/refunds/{}",
    }


def test_the_sandbox_speaks_the_version_that_the_library_asks_for():
    from sandbox.state import API_VERSION

    assert importlib.import_module("stripe._api_version")._ApiVersion.CURRENT == API_VERSION
