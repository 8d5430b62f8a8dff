"""What Stripe answers when it does not do as asked."""

from typing import Any

DOCS = "https://docs.stripe.com/error-codes"


class StripeError(Exception):
    """An answer of 4xx or 5xx. `remembered` says whether it is repeated to whoever comes with the same key."""

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
    """400: the request was understood and makes no sense now."""
    return StripeError(400, message, param=param, code=code, **fields)


def wrong_parameter(message: str, *, param: str, code: str | None = None) -> StripeError:
    """400 before anything was executed: Stripe keeps no answer of it under the key."""
    return StripeError(400, message, param=param, code=code, remembered=False)


def missing(kind: str, name: str, param: str = "id", status: int = 404) -> StripeError:
    return StripeError(status, f"No such {kind}: '{name}'", code="resource_missing", param=param)


def declined(message: str, *, code: str, decline_code: str | None = None, **fields: Any) -> StripeError:
    """402: the card's bank said no."""
    return StripeError(402, message, type="card_error", code=code, decline_code=decline_code, **fields)
