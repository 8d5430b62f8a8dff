"""First requests in curl, Python and Node, with the service's own address. The same as in docs/quickstart.md."""

CURL = """\
export REGISTRY_KEY=rk_…   # the key that you have made
curl {address}/payments -H "Authorization: Bearer $REGISTRY_KEY" -H 'Content-Type: application/json' \\
     -d '{{"amount":"19.90","description":"Two glasses","returnUrl":"https://shop.example/orders/1001"}}'
"""
PYTHON = """\
import os
from urllib.parse import urljoin
from uuid import uuid4

from registry_client import Client

REGISTRY = "{address}"

with Client(REGISTRY, os.environ["REGISTRY_KEY"]) as client:
    order = uuid4()  # also the payment's id: sending it again cannot pay twice
    payment = client.payments.submit(
        "19.90",
        correlation_id=order,
        description="Two glasses",
        return_url=f"https://shop.example/orders/{{order}}",
    )
    print(urljoin(REGISTRY, payment.live_url))  # send the payer there
"""
NODE = """\
import {{ randomUUID }} from "node:crypto";

const REGISTRY = "{address}";
const order = randomUUID(); // also the payment's id: sending it again cannot pay twice

const response = await fetch(`${{REGISTRY}}/payments`, {{
  method: "POST",
  headers: {{ Authorization: `Bearer ${{process.env.REGISTRY_KEY}}`, "Content-Type": "application/json" }},
  body: JSON.stringify({{
    correlationId: order,
    amount: "19.90",
    description: "Two glasses",
    returnUrl: `https://shop.example/orders/${{order}}`,
  }}),
}});
if (!response.ok) throw new Error(await response.text());
console.log(new URL((await response.json()).liveUrl, REGISTRY).href); // send the payer there
"""
LANGUAGES = {"curl": CURL, "Python": PYTHON, "Node": NODE}


def snippets(address: str) -> list[tuple[str, str]]:
    """Pairs of language and program."""
    return [(name, text.format(address=address).rstrip()) for name, text in LANGUAGES.items()]
