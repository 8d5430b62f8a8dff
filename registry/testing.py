"""The pytest plugin that gives a test run its servers. It comes before pytest-django reads the settings, which want
their names; conftest.py would be too late."""

import os
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry import embedded


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Servers of the tests' own, beside those of `make run`; every xdist process uses the same pair."""
    data = Path(os.environ.setdefault("REGISTRY_DATA", str(early_config.rootpath / ".data" / "test"))).resolve()
    stack = ExitStack()
    early_config.add_cleanup(stack.close)
    stack.enter_context(embedded.use(data))
    return (yield)
