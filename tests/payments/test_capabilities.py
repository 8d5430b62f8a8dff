"""The app loads every module that registers something by name, and no others: payments/apps.py."""

import re
from pathlib import Path

from payments.apps import CAPABILITIES

PAYMENTS = Path(__file__).parents[2] / "payments"
REGISTERS = re.compile(
    r"^ *@?(chore\(|source\(|entry\.register\(|spill\.register\(|sources\.register\(|HANDLERS\[|GATES\.append\(|status\.gauges|book_part\(|export\.TABLES )",
    re.MULTILINE,
)


def test_modules_that_register_something_are_loaded_with_the_app():
    registering = {
        ".".join(path.relative_to(PAYMENTS).with_suffix("").parts)
        for path in PAYMENTS.rglob("*.py")
        if REGISTERS.search(path.read_text())
    }

    assert sorted(registering) == sorted(CAPABILITIES)
