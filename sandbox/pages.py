"""Pages for payers: choice of a test card, and the bank's authentication page.

Plain HTML, no script. They replace Stripe's form and the bank's page.
"""

import re
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sandbox import confirming, customers
from sandbox.cards import CARDS
from sandbox.errors import StripeError, invalid
from sandbox.html import card_button, form, money, page, redirect, web_address
from sandbox.state import Thing
from sandbox.wire import Answer, Request

if TYPE_CHECKING:
    from sandbox.app import Sandbox

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


async def answer(sandbox: "Sandbox", request: Request) -> Answer | None:
    """The page, or None for another path."""
    if not (match := re.fullmatch(r"/sandbox/(3ds|pay)/(\w+)", request.path)) or request.method not in ("GET", "POST"):
        return None
    try:
        intent = sandbox.state.find("payment_intent", match[2], "intent")
        if request.values.get("client_secret") != intent["client_secret"]:
            raise invalid("This address does not belong to a payment.")
        back = web_address(request.values.get("return_url") or _return_url(intent))
        return await (_authentication if match[1] == "3ds" else _card)(sandbox, request, intent, back)
    except StripeError as error:
        return page("Payment not found", f"<p>{escape(str(error))}</p>", status=error.status)


def _return_url(intent: Thing) -> str:
    action = intent["next_action"] or {}
    return str(action.get("redirect_to_url", {}).get("return_url") or "")


async def _authentication(sandbox: "Sandbox", request: Request, intent: Thing, back: str) -> Answer:
    """The bank's authentication page."""
    if request.method == "POST":
        confirming.authenticate(sandbox.state, intent, passed=request.values.get("answer") == "complete")
        await sandbox.finish()
        return _return(intent, back)
    if intent["status"] != "requires_action":
        return _over(intent, back)
    buttons = (
        '<button name="answer" value="complete"><b>Complete authentication</b>The payment succeeds.</button>'
        '<button name="answer" value="fail"><b>Fail authentication</b>The payment fails.</button>'
    )
    text = f"<p>Your bank asks whether you want to pay <b>{money(intent)}</b>.</p>"
    return page("3-D Secure", text + form(request, buttons), form_to=back)


async def _card(sandbox: "Sandbox", request: Request, intent: Thing, back: str) -> Answer:
    """The page with test cards."""
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
    buttons = "".join(card_button(name) for name in OFFERED)
    text = f"<p>Pay <b>{money(intent)}</b> with one of Stripe's test cards.</p>{alert}"
    return page("Pay by card", text + form(request, buttons), form_to=back)


async def _pay(sandbox: "Sandbox", intent: Thing, card: str, back: str) -> str:
    """Confirm with this card; returns an error text for the payer, or an empty string."""
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
    return redirect(f"/sandbox/3ds/{intent['id']}?{query}")


def _return(intent: Thing, back: str) -> Answer:
    """Redirect to the return URL with Stripe's parameters."""
    if not back:
        return _over(intent, back)
    parts = urlsplit(back)
    added = {
        "payment_intent": intent["id"],
        "payment_intent_client_secret": intent["client_secret"],
        "redirect_status": "succeeded" if intent["status"] in OVER else "failed",
    }
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *added.items()])
    return redirect(urlunsplit(parts._replace(query=query)))


def _over(intent: Thing, back: str) -> Answer:
    link = f'<p><a href="{escape(back)}">Back to the shop</a></p>' if back else ""
    said = OVER.get(intent["status"], "does not require an action")
    return page("Payment", f"<p>The payment of <b>{money(intent)}</b> {said}.</p>{link}")
