"""Fixtures of tests of the registry."""

import json
import logging
from collections.abc import Iterator

import pytest
from structlog.stdlib import ProcessorFormatter


class Lines(logging.Handler):
    """What the service's own formatter makes of each record, read back."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    ours = next(h for h in root.handlers if isinstance(h.formatter, ProcessorFormatter))
    handler.setFormatter(ours.formatter)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
