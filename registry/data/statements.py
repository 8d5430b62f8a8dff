"""Named statements in .sql files."""

import re
from functools import cache
from pathlib import Path

from registry.data import refusals

_NAMED = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements(path: Path) -> dict[str, str]:
    """The statements of a .sql file by their `-- name:` lines."""
    parts = _NAMED.split(path.read_text())
    found = {name: sql.strip().rstrip(";") for name, sql in zip(parts[1::2], parts[2::2], strict=True)}
    for name, sql in found.items():
        refusals.set_name(sql, f"{path.stem}.{name}")
    return found
