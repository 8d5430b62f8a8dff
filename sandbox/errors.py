"""Stripe's API errors."""

from typing import Any

DOCS = "https://docs.stripe.com/error-codes"


class StripeError(Exception):
    """An error response. `remembered`: it is stored under the idempotency key and replayed."""

    def __init__(self, status: int, message: str, *, remembered: bool = True, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.remembered = remembered
        self.fields = {"message": message, "type": "invalid_request_error", **fields}

    def body(self) -> dict[str, Any]:
        fields = {name: value for name, value in self.fields.items() if value is not None}
        if code := fields.get("code"):
            fields["doc_url"] = f"{DOCS}#{code.replace('_', '-')}"
        return {"error": fields}


def invalid(message: str, *, param: str | None = None, code: str | None = None, **fields: Any) -> StripeError:
    """Error 400: a valid request that is not allowed in the current state."""
    return StripeError(400, message, param=param, code=code, **fields)


def wrong_parameter(message: str, *, param: str, code: str | None = None) -> StripeError:
    """Error 400 for invalid parameters: not stored under the idempotency key."""
    return StripeError(400, message, param=param, code=code, remembered=False)


def missing(kind: str, name: str, param: str = "id", status: int = 404) -> StripeError:
    return StripeError(status, f"No such {kind}: '{name}'", code="resource_missing", param=param)


def declined(message: str, *, code: str, decline_code: str | None = None, **fields: Any) -> StripeError:
    """Error 402: the card is declined."""
    return StripeError(402, message, type="card_error", code=code, decline_code=decline_code, **fields)
