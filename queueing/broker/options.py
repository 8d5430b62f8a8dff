"""Options of a queue: names of the contract, columns, bounds and defaults.

Defaults differ from Queen's where those would lose messages (decision 013): ttl is 0, and dead letters are on.
"""

from typing import Any, NamedTuple

from queueing.broker import crypto
from queueing.broker.errors import BadRequest

DAY = 86_400
YEARS = 3650 * DAY  # seconds; a longer time is written as 0, never


class Option(NamedTuple):
    """One option: `least` and `most` bound a whole number; a flag has neither."""

    name: str
    column: str
    default: int | bool
    least: int = 0
    most: int = 1

    @property
    def is_flag(self) -> bool:
        return isinstance(self.default, bool)


OPTIONS = (
    Option("leaseTime", "lease_seconds", 300, 1, 7 * DAY),
    Option("retryLimit", "retry_limit", 3, 0, 1_000_000),
    Option("retryDelay", "retry_delay_ms", 1000, 0, 1000 * DAY),
    Option("maxSize", "max_size", 0, 0, 10**15),
    Option("ttl", "ttl_seconds", 0, 0, YEARS),
    Option("priority", "priority", 0, -1_000_000, 1_000_000),
    Option("delayedProcessing", "delay_seconds", 0, 0, YEARS),
    Option("windowBuffer", "window_seconds", 0, 0, YEARS),
    Option("retentionSeconds", "retention_seconds", 0, 0, YEARS),
    Option("completedRetentionSeconds", "completed_retention_seconds", 0, 0, YEARS),
    Option("retentionEnabled", "retention_enabled", False),
    Option("encryptionEnabled", "encrypted", False),
    Option("deadLetterQueue", "dead_letter_queue", True),
    Option("dlqAfterMaxRetries", "dead_letter_after_retries", True),
    Option("maxWaitTimeSeconds", "max_wait_seconds", 0, 0, YEARS),
)
BY_NAME = {option.name: option for option in OPTIONS}
COLUMNS = tuple(option.column for option in OPTIONS)


def parse(options: dict[str, Any]) -> dict[str, int | bool]:
    """Checked values by column. Raises BadRequest (400) that names the option and what it wants."""
    unknown = [name for name in options if name not in BY_NAME]
    if unknown:
        raise BadRequest(f"unknown option {unknown[0][:100]!r}; allowed: {', '.join(BY_NAME)}")
    return {
        BY_NAME[name].column: _checked(BY_NAME[name], value) for name, value in options.items() if value is not None
    }


def _checked(option: Option, value: Any) -> int | bool:
    if option.is_flag:
        if not isinstance(value, bool):
            raise BadRequest(f"{option.name} wants true or false")
        if option.column == "encrypted" and value and not crypto.has_key():
            raise BadRequest(
                "encryptionEnabled wants a key (QUEUE_ENCRYPTION_KEYS), and this service has none; "
                "nothing is ever stored in the clear instead"
            )
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one number type
    if isinstance(value, bool) or not isinstance(value, int) or not option.least <= value <= option.most:
        raise BadRequest(f"{option.name} wants a whole number from {option.least} to {option.most}")
    return value


def defaults() -> dict[str, int | bool]:
    return {option.column: option.default for option in OPTIONS}


def named(columns: dict[str, Any]) -> dict[str, Any]:
    """Options by the contract's names, from the row's columns."""
    return {option.name: columns[option.column] for option in OPTIONS}
