"""The statements of the parts, and how they name amounts and payments."""

from pathlib import Path
from uuid import UUID

from payments.money import decimal_text
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "check.sql")


def money(units: int | None, currency: str) -> str:
    return "none" if units is None else f"{decimal_text(units, currency)} {currency}"


def payment_named(correlation_id: UUID | None, payment_id: int) -> str:
    """A payment as operators know it; by its row's id where the payment itself is gone."""
    return f"payment {correlation_id}" if correlation_id else f"payment with id {payment_id}, which does not exist"
