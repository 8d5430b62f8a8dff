"""What a payer sees at the sandbox: a page to choose a test card on, and the bank's page that asks for authentication.

Plain HTML, no script. In Stripe's place a payer would see Stripe's form, and their bank's page.
"""

import base64
import hashlib
import re
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from payments.stripe_sandbox import confirming, customers
from payments.stripe_sandbox.cards import CARDS
from payments.stripe_sandbox.errors import StripeError, invalid
from payments.stripe_sandbox.state import Thing
from payments.stripe_sandbox.wire import Answer, Request

if TYPE_CHECKING:
    from payments.stripe_sandbox.app import Sandbox

OFFERED = (
    "pm_card_visa",
    "pm_card_threeDSecure2Required",
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_createDispute",
    "pm_card_pendingRefund",
    "pm_card_refundFail",
)
OVER = {"succeeded": "has been paid", "requires_capture": "has been paid", "canceled": "was canceled"}
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; display: grid; min-height: 100vh; place-items: center; background: Canvas; color: CanvasText; }
main { width: min(26rem, 100% - 2rem); padding: 1.5rem; border: 1px solid GrayText; border-radius: .75rem; }
h1 { font-size: 1.25rem; margin: 0 0 .25rem; }
form { display: grid; gap: .5rem; margin-top: 1rem; }
button { font: inherit; text-align: left; padding: .6rem .9rem; min-height: 2.75rem; border-radius: .5rem; cursor: pointer;
  border: 1px solid ButtonBorder; background: ButtonFace; color: ButtonText; }
button b { display: block; }
[role=alert] { border-left: .25rem solid #c0392b; padding-left: .75rem; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


async def answer(sandbox: "Sandbox", request: Request) -> Answer | None:
    """None where there is no such page."""
    if not (match := re.fullmatch(r"/sandbox/(3ds|pay)/(\w+)", request.path)) or request.method not in ("GET", "POST"):
        return None
    try:
        intent = sandbox.state.find("payment_intent", match[2], "intent")
        if request.values.get("client_secret") != intent["client_secret"]:
            raise invalid("This address does not belong to a payment.")
        back = _address(request.values.get("return_url") or _return_url(intent))
        return await (_authentication if match[1] == "3ds" else _card)(sandbox, request, intent, back)
    except StripeError as error:
        return _page("Nothing to pay here", f"<p>{escape(str(error))}</p>", status=error.status)


def _return_url(intent: Thing) -> str:
    action = intent["next_action"] or {}
    return str(action.get("redirect_to_url", {}).get("return_url") or "")


def _address(url: str) -> str:
    """Raises StripeError for what no browser should be sent to."""
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise invalid("The return_url is no web address.", param="return_url")
    return url


async def _authentication(sandbox: "Sandbox", request: Request, intent: Thing, back: str) -> Answer:
    """The bank's page."""
    if request.method == "POST":
        confirming.authenticate(sandbox.state, intent, passed=request.values.get("answer") == "complete")
        await sandbox.finish()
        return _return(intent, back)
    if intent["status"] != "requires_action":
        return _over(intent, back)
    buttons = (
        '<button name="answer" value="complete"><b>Complete authentication</b>The payment goes through.</button>'
        '<button name="answer" value="fail"><b>Fail authentication</b>The payment does not go through.</button>'
    )
    text = f"<p>Your bank asks whether you want to pay <b>{_money(intent)}</b>.</p>"
    return _page("3-D Secure", text + _form(request, buttons), form_to=back)


async def _card(sandbox: "Sandbox", request: Request, intent: Thing, back: str) -> Answer:
    """The page to choose a card on."""
    if intent["status"] == "requires_action" and intent["next_action"]:
        return _to_bank(intent, back)
    if intent["status"] not in confirming.CONFIRMABLE:
        return _over(intent, back)
    problem = ""
    if request.method == "POST" and (card := request.values.get("card", "")) in CARDS:
        problem = await _pay(sandbox, intent, card, back)
        if not problem:
            return _to_bank(intent, back) if intent["status"] == "requires_action" else _return(intent, back)
    alert = f'<p role="alert">{escape(problem)} Choose another card.</p>' if problem else ""
    buttons = "".join(_button(name) for name in OFFERED)
    text = f"<p>Pay <b>{_money(intent)}</b> with one of Stripe's test cards.</p>{alert}"
    return _page("Pay by card", text + _form(request, buttons), form_to=back)


async def _pay(sandbox: "Sandbox", intent: Thing, card: str, back: str) -> str:
    """Confirm with this card; what went wrong, for the payer."""
    try:
        intent["payment_method"] = customers.usable_method(sandbox.state, card, intent["customer"])["id"]
        confirming.confirm(sandbox.state, intent, {"return_url": back} if back else {"use_stripe_sdk": True})
        return ""
    except StripeError as error:
        return str(error)
    finally:
        await sandbox.finish()


def _to_bank(intent: Thing, back: str) -> Answer:
    query = urlencode({"client_secret": intent["client_secret"], **({"return_url": back} if back else {})})
    return _redirect(f"/sandbox/3ds/{intent['id']}?{query}")


def _return(intent: Thing, back: str) -> Answer:
    """To where the payer came from, with what Stripe adds to the address."""
    if not back:
        return _over(intent, back)
    parts = urlsplit(back)
    added = {
        "payment_intent": intent["id"],
        "payment_intent_client_secret": intent["client_secret"],
        "redirect_status": "succeeded" if intent["status"] in OVER else "failed",
    }
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *added.items()])
    return _redirect(urlunsplit(parts._replace(query=query)))


def _over(intent: Thing, back: str) -> Answer:
    link = f'<p><a href="{escape(back)}">Back to the shop</a></p>' if back else ""
    said = OVER.get(intent["status"], "is not waiting for you")
    return _page("Nothing to do", f"<p>The payment of <b>{_money(intent)}</b> {said}.</p>{link}")


# -- HTML ---------------------------------------------------------------------------------------------------


def _money(intent: Thing) -> str:
    return f"{intent['currency'].upper()} {intent['amount'] / 100:.2f}"


def _button(name: str) -> str:
    card = CARDS[name]
    return f'<button name="card" value="{name}"><b>•••• {card.last4}</b>{escape(card.label)}</button>'


def _form(request: Request, buttons: str) -> str:
    return f'<form method="post" action="{escape(request.path)}?{escape(request.query)}">{buttons}</form>'


def _page(title: str, content: str, *, status: int = 200, form_to: str = "") -> Answer:
    """`form_to`: where the answer to its form may lead, for the policy holds there as well."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{content}<p><small>Played by the sandbox: no card, no bank, no money."
        "</small></p></main></body></html>"
    )
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(form_to)) if form_to else ""
    policy = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src data:; form-action 'self' {origin}"
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": f"{policy}; base-uri 'none'; frame-ancestors 'none'",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Answer(status, html.encode(), headers)


def _redirect(url: str) -> Answer:
    return Answer(303, b"", {"location": quote(url, safe="/:?&=#%+,;@!$'()*~[]")})
