"""Pages for subscribers: Checkout, the billing portal, an invoice. Plain HTML, no script."""

import re
from html import escape
from typing import TYPE_CHECKING

from sandbox import checkout, customers, subscriptions
from sandbox.cards import CARDS
from sandbox.errors import StripeError
from sandbox.html import card_button, form, page, redirect, web_address
from sandbox.state import State, Thing
from sandbox.wire import Answer, Request

if TYPE_CHECKING:
    from sandbox.app import Sandbox

OFFERED = ("pm_card_visa", "pm_card_chargeDeclined", "pm_card_chargeCustomerFail")
PLACES = {"checkout": "checkout.session", "portal": "billing_portal.session", "invoice": "invoice"}


async def answer(sandbox: "Sandbox", request: Request) -> Answer | None:
    """The page, or None for another path. As at Stripe, the address alone gives access."""
    if not (match := re.fullmatch(r"/sandbox/(checkout|portal|invoice)/(\w+)", request.path)):
        return None
    try:
        found = sandbox.state.find(PLACES[match[1]], match[2])
        shown = {"checkout": _checkout, "portal": _portal, "invoice": _invoice}[match[1]](sandbox.state, request, found)
    except StripeError as error:
        shown = page("Page not found", f"<p>{escape(str(error))}</p>", status=error.status)
    await sandbox.finish()
    return shown


def _chosen(request: Request) -> str:
    """The chosen card, or an empty string."""
    card = request.values.get("card", "") if request.method == "POST" else ""
    return card if card in CARDS else ""


def _cards(request: Request) -> str:
    return form(request, "".join(card_button(name) for name in OFFERED))


def _alert(problem: str) -> str:
    return f'<p role="alert">{escape(problem)}</p>' if problem else ""


def _checkout(state: State, request: Request, session: Thing) -> Answer:
    success = web_address(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))
    if session["status"] != "open":
        return page(
            "Checkout", f'<p>This session is {session["status"]}.</p><p><a href="{escape(success)}">Back</a></p>'
        )
    problem = ""
    if card := _chosen(request):
        try:
            checkout.complete(state, session, card)
            return redirect(success)
        except StripeError as error:
            problem = f"{error} Choose another card."
    price = state.find("price", session["_items"][0]["price"])
    product = state.find("product", price["product"])
    each = f"{price['currency'].upper()} {price['unit_amount'] / 100:.2f} per {price['recurring']['interval']}"
    days = session["_subscription_data"].get("trial_period_days")
    trial = f"<p>The first {days} days are free.</p>" if days else ""
    cancel = session["cancel_url"]
    back = f'<p><a href="{escape(web_address(cancel))}">Cancel</a></p>' if cancel else ""
    text = f"<p><b>{escape(product['name'])}</b>, {each}</p>{trial}{_alert(problem)}{_cards(request)}{back}"
    return page("Subscribe", text, form_to=success)


def _portal(state: State, request: Request, session: Thing) -> Answer:
    """The billing portal: another card, cancel, resume, pay open invoices."""
    customer = state.find("customer", session["customer"])
    mine = [one for one in state.of("subscription", customer=customer["id"]) if one["status"] not in subscriptions.OVER]
    problem = ""
    if request.method == "POST":
        try:
            _act(state, request, customer, mine)
        except StripeError as error:
            problem = str(error)
    rows = "".join(_row(request, subscription) for subscription in mine) or "<p>No subscription.</p>"
    back = session["return_url"]
    link = f'<p><a href="{escape(web_address(back))}">Back</a></p>' if back else ""
    return page("Billing", f"{_alert(problem)}{rows}<h2>Change payment method</h2>{_cards(request)}{link}")


def _row(request: Request, subscription: Thing) -> str:
    item = subscription["items"]["data"][0]
    leaving = subscription["cancel_at_period_end"]
    doing, said = ("stay", "Stay subscribed") if leaving else ("leave", "Cancel at the end of the period")
    button = f'<button name="{doing}" value="{subscription["id"]}">{said}</button>'
    cost = f"{item['price']['currency'].upper()} {item['price']['unit_amount'] / 100:.2f}"
    return f"<p>{cost}, <b>{subscription['status']}</b></p>{form(request, button)}"


def _act(state: State, request: Request, customer: Thing, mine: list[Thing]) -> None:
    """Apply the form of the portal. Raises StripeError."""
    if card := _chosen(request):
        method = customers.attach_to(state, customers.make_method(state, card), customer)
        customer["invoice_settings"]["default_payment_method"] = method["id"]
        state.emit("customer.updated", state.save(customer))
        for subscription in mine:
            subscription["default_payment_method"] = method["id"]
            state.save(subscription)
            for invoice in state.of("invoice", _subscription=subscription["id"], status="open"):
                subscriptions.collect(state, subscription, invoice)
    for doing in ("leave", "stay"):
        for subscription in [one for one in mine if one["id"] == request.values.get(doing)]:
            leaving = doing == "leave"
            subscription.update(cancel_at_period_end=leaving, canceled_at=state.now() if leaving else None)
            state.emit("customer.subscription.updated", state.save(subscription))


def _invoice(state: State, request: Request, invoice: Thing) -> Answer:
    problem = ""
    if (card := _chosen(request)) and invoice["status"] == "open":
        subscription = state.find("subscription", invoice["_subscription"])
        method = customers.attach_to(
            state, customers.make_method(state, card), state.find("customer", invoice["customer"])
        )
        if not subscriptions.collect(state, subscription, invoice, method["id"]):
            problem = "Your card was declined. Choose another card."
    total = f"{invoice['currency'].upper()} {invoice['total'] / 100:.2f}"
    if invoice["status"] != "open":
        return page("Invoice", f"<p>{total}: {invoice['status']}.</p>")
    return page("Invoice", f"<p>Pay <b>{total}</b>.</p>{_alert(problem)}{_cards(request)}")
