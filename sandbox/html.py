"""Layout and Content-Security-Policy of the sandbox's pages."""

import base64
import hashlib
from html import escape
from urllib.parse import quote, urlsplit

from sandbox.cards import CARDS
from sandbox.errors import invalid
from sandbox.state import Thing
from sandbox.wire import Answer, Request

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


def web_address(url: str) -> str:
    """The address. Raises StripeError unless it is http or https."""
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise invalid("The return_url is no web address.", param="return_url")
    return url


def money(intent: Thing) -> str:
    return f"{intent['currency'].upper()} {intent['amount'] / 100:.2f}"


def card_button(name: str) -> str:
    card = CARDS[name]
    return f'<button name="card" value="{name}"><b>•••• {card.last4}</b>{escape(card.label)}</button>'


def form(request: Request, buttons: str) -> str:
    return f'<form method="post" action="{escape(request.path)}?{escape(request.query)}">{buttons}</form>'


def page(title: str, content: str, *, status: int = 200, form_to: str = "", head: str = "") -> Answer:
    """An HTML page. `form_to`: address to which its form may redirect, for the policy's form-action."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{STYLE}</style>{head}</head>'
        f"<body><main><h1>{escape(title)}</h1>{content}<p><small>Stripe simulator: no real card, bank or money."
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


def redirect(url: str) -> Answer:
    return Answer(303, b"", {"location": quote(url, safe="/:?&=#%+,;@!$'()*~[]")})
