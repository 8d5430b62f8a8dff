"""The pages of the sandbox for payers, over plain HTTP."""

import re
from urllib.parse import parse_qs, urlsplit

from tests.bed.stripe import SandboxStripe

CARD = {"amount": 1990, "currency": "brl", "allowed_payment_method_types": ["card"]}
BACK = "https://shop.example/back?order=7"
SECURE = {**CARD, "payment_method": "pm_card_threeDSecure2Required", "confirm": True, "return_url": BACK}


async def test_the_page_of_the_bank_has_both_buttons_and_no_script(client, http):
    intent = await client.payment_intents.create_async(SECURE)

    async with http.get(intent.next_action.redirect_to_url.url) as answer:
        html = await answer.text()

    assert re.findall('value="(complete|fail)"', html) == ["complete", "fail"]
    assert "BRL 19.90" in html
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_the_buttons_lead_back_to_the_shop(client, http, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(SECURE)
    page = intent.next_action.redirect_to_url.url

    async with http.post(page, data={"answer": "complete"}, allow_redirects=False) as answer:
        address = urlsplit(answer.headers["Location"])

    assert (answer.status, address.netloc) == (303, "shop.example")
    query = parse_qs(address.query)
    assert (query["order"], query["redirect_status"], query["payment_intent"]) == (["7"], ["succeeded"], [intent.id])
    assert stripe[intent.id]["status"] == "succeeded"


async def test_a_page_without_the_clients_secret_shows_nothing(client, http):
    intent = await client.payment_intents.create_async(SECURE)

    async with http.get(f"/sandbox/3ds/{intent.id}?client_secret=guessed") as answer:
        html = await answer.text()

    assert (answer.status, "BRL 19.90" in html) == (400, False)


async def test_a_payer_chooses_a_card(client, http, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(CARD)
    page = {"client_secret": intent.client_secret, "return_url": BACK}

    async with http.get(f"/sandbox/pay/{intent.id}", params=page) as answer:
        offered = re.findall('value="(pm_card_[^"]+)"', await answer.text())
    async with http.post(
        f"/sandbox/pay/{intent.id}", params=page, data={"card": offered[0]}, allow_redirects=False
    ) as answer:
        location = answer.headers["Location"]

    assert location.startswith("https://shop.example/back?order=7&payment_intent=")
    assert stripe[intent.id]["status"] == "succeeded"


async def test_a_declined_card_can_be_followed_by_another(client, http, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(CARD)
    page = {"client_secret": intent.client_secret, "return_url": BACK}

    async with http.post(f"/sandbox/pay/{intent.id}", params=page, data={"card": "pm_card_chargeDeclined"}) as answer:
        html = await answer.text()
    async with http.post(
        f"/sandbox/pay/{intent.id}", params=page, data={"card": "pm_card_visa"}, allow_redirects=False
    ) as answer:
        assert answer.status == 303

    assert "Your card was declined." in html
    assert stripe[intent.id]["status"] == "succeeded"


async def test_a_card_that_requires_authentication_leads_to_the_page_of_the_bank(client, http):
    intent = await client.payment_intents.create_async(CARD)
    page = {"client_secret": intent.client_secret, "return_url": BACK}

    async with http.post(
        f"/sandbox/pay/{intent.id}", params=page, data={"card": "pm_card_threeDSecure2Required"}
    ) as answer:
        html = await answer.text()

    assert (answer.url.path, "Complete authentication" in html) == (f"/sandbox/3ds/{intent.id}", True)


async def test_no_redirect_leads_to_a_script_url(client, http):
    intent = await client.payment_intents.create_async(CARD)
    page = {"client_secret": intent.client_secret, "return_url": "javascript:alert(1)"}

    async with http.get(f"/sandbox/pay/{intent.id}", params=page) as answer:
        html = await answer.text()

    assert (answer.status, "javascript:" in html) == (400, False)
