"""Codes of processors in words: why a card or a refund was declined, why an attempt had no clear answer.

The codes are Stripe's (https://docs.stripe.com/declines/codes), those of our processor kinds, and HTTP statuses. No I/O.
"""

import re

WORDS = {
    # the payer's card or bank
    "approve_with_id": "the bank could not authorize the payment",
    "authentication_required": "the bank wants the payer to confirm the payment",
    "call_issuer": "the bank declined without a reason",
    "card_declined": "the bank declined without a reason",
    "card_not_supported": "the card does not support this kind of purchase",
    "card_velocity_exceeded": "the card is over its limit",
    "currency_not_supported": "the card does not support this currency",
    "do_not_honor": "the bank declined without a reason",
    "do_not_try_again": "the bank declined and wants no further attempt",
    "duplicate_transaction": "the same amount was charged to this card moments before",
    "expired_card": "the card has expired",
    "fraudulent": "the processor suspects fraud",
    "generic_decline": "the bank declined without a reason",
    "incorrect_cvc": "the card's security code is wrong",
    "incorrect_number": "the card number is wrong",
    "incorrect_pin": "the PIN is wrong",
    "incorrect_zip": "the postal code is wrong",
    "insufficient_funds": "the account has not enough money",
    "invalid_account": "the card or its account is invalid",
    "invalid_cvc": "the card's security code is wrong",
    "invalid_expiry_month": "the card's expiry month is wrong",
    "invalid_expiry_year": "the card's expiry year is wrong",
    "invalid_number": "the card number is wrong",
    "issuer_not_available": "the bank could not be reached",
    "lost_card": "the card was reported lost",
    "merchant_blacklist": "the card is on the seller's block list",
    "new_account_information_available": "the card or its account is invalid",
    "no_action_taken": "the bank declined without a reason",
    "not_permitted": "the bank does not permit the payment",
    "payment_intent_authentication_failure": "the payer did not confirm the payment at the bank",
    "pickup_card": "the card may not be used; it may be reported lost or stolen",
    "processing_error": "the bank could not process the card",
    "reenter_transaction": "the bank could not process the payment",
    "restricted_card": "the card may not be used; it may be reported lost or stolen",
    "stolen_card": "the card was reported stolen",
    "testmode_decline": "a test card was used",
    "live_mode_test_card": "a test card was used",
    "transaction_not_allowed": "the bank does not allow this kind of payment",
    "try_again_later": "the bank declined for now",
    "withdrawal_count_limit_exceeded": "the card is over its limit",
    # amounts
    "amount_refused": "the processor cannot charge this amount",
    "amount_too_large": "the amount is too large for the processor",
    "amount_too_small": "the amount is too small for the processor",
    "amount_differs": "another amount was captured than requested",
    # refunds
    "refund_declined": "the processor declined it without a reason",
    "no_such_payment": "the processor does not know the payment",
    "charge_already_refunded": "the payment is refunded already",
    "charge_disputed": "the payment is disputed",
    "expired_or_canceled_card": "the card has expired or is canceled",
    "lost_or_stolen_card": "the card was reported lost or stolen",
    "cannot_give_back": "the processor does not support refunds any more",
    "never_returned": "the processor does not know the refund",
    # answers
    "timeout": "no answer within the time limit",
    "garbage": "an answer that could not be read",
    "no_connection": "no connection to the processor",
    "NotSent": "no connection to the processor",
    "BadAddress": "the processor's address cannot be used",
    "Disconnected": "the connection was lost",
    "BadAnswer": "an answer that could not be read",
    "not_there_yet": "not known there yet",
    "looked_up": "found there",
    "never_booked": "certainly not booked there",
    "not_sent_in_time": "not sent in time",
    "worker_left": "the worker stopped before the answer arrived",
    "rate_limit": "too many requests",
    "idempotency_error": "the idempotency key was used with other content",
    "key_forgotten": "the idempotency key has expired",
    "sealed": "the processor's keys cannot be read",
    "sandbox_away": "the sandbox's database is away",
}  # fmt: skip
# Stripe asks not to tell a payer more than that these were declined. Members of the tenant see them.


def words(code: str) -> str:
    """The code in words; an unknown one with spaces."""
    if known := WORDS.get(code):
        return known
    if status := re.fullmatch(r"http_(\d{3})", code):
        return f"HTTP {status[1]}"
    return code.replace("_", " ")
