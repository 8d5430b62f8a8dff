"""What an account at a processor must be like: name, kind, URL, fee, keys. accounts.py adds and changes accounts."""

from decimal import Decimal, InvalidOperation
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug

from payments.errors import PaymentError
from registry.http.client import Address, BadAddress
from registry.models import Tenant

LIVE_KEYS = ("sk_live_", "rk_live_")
TEST_KEYS = ("sk_test_", "rk_test_")


class Refused(PaymentError):
    """The processor cannot be added that way."""


def check_name(name: str) -> None:
    try:
        validate_slug(name)
    except ValidationError:
        raise Refused(f"a name has letters, digits, hyphens and underscores, got {name!r}") from None
    if len(name) > 63:
        raise Refused("a name has at most 63 characters")


def check_kind(kind: str) -> None:
    from payments.processors import KINDS  # here: a kind may import a client that is slow to load

    if kind not in KINDS:
        raise Refused(f"there is no kind {kind!r}; there are: {', '.join(sorted(KINDS))}")


def check_url(kind: str, url: str) -> None:
    """Kind http wants an address; names without a dot are fine, they are usual on private networks."""
    if not url:
        if kind == "http":
            raise Refused("kind http wants a URL, such as http://127.0.0.1:8001")
        return
    try:
        Address.parse(url)
    except BadAddress as error:
        raise Refused(f"not an http address: {error}") from None
    if len(url) > 500:
        raise Refused("not an http address: it has more than 500 characters")


def check_secrets(kind: str, tenant: Tenant, secrets: dict[str, Any], *, url: str) -> None:
    """Raises Refused. Kind stripe needs a key of the tenant's mode; a live key only in production and for Stripe's own URL. A live
    tenant in production needs a kind that moves money. No message repeats a secret."""
    live_in_production = settings.PRODUCTION and tenant.mode == Tenant.Mode.LIVE
    if kind == "sandbox" and live_in_production:
        raise Refused("kind sandbox moves no money: a live tenant wants kind http or stripe")
    if kind != "stripe":
        if secrets:
            raise Refused(f"kind {kind} has no secrets; only kind stripe has")
        return
    key = secrets.get("secretKey")
    if not isinstance(key, str) or not key.startswith((*LIVE_KEYS, *TEST_KEYS)) or not key.isascii():
        raise Refused("kind stripe wants --option secretKey=sk_test_…, the account's secret or restricted key")
    live = key.startswith(LIVE_KEYS)
    if live and not live_in_production:
        raise Refused("a live key is for live tenants in production only: nothing else may move real money")
    if live and url:
        raise Refused(
            "a live key is for Stripe itself: leave the URL empty, because the server there would receive the key"
        )
    if not live and live_in_production:
        raise Refused("a test key books nothing: a live tenant wants a live one")
    of_webhooks = secrets.get("webhookSecrets", [])
    if not all(isinstance(one, str) and one.startswith("whsec_") for one in of_webhooks):
        raise Refused("a webhook secret begins with whsec_")


def check_fee(fee: Decimal | str) -> Decimal:
    """A share of the amount: at least 0, below 1, at most six decimals."""
    try:
        share = Decimal(fee)
        fits = 0 <= share < 1 and share == round(share, 6)
    except InvalidOperation:
        fits = False
    if not fits:
        raise Refused(f"a fee is a share of the amount from 0 to below 1, such as 0.05, got {fee}")
    return share
