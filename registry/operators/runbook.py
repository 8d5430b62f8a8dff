"""The runbook of the operators, docs/operators/runbook.md: a section for each source of attention and each alert, shown in the admin too."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

PATH = Path("docs") / "operators" / "runbook.md"
_section = re.compile(r"^## (?P<name>[a-z_.]+)\n(?P<text>.*?)(?=^## |\Z)", re.M | re.S)
_part = re.compile(r"^\*\*(?P<title>Means|Check|Do|Resolves)\*\*: (?P<text>.*?)(?=\n\n|\n\*\*|\Z)", re.M | re.S)


class RunbookSection(NamedTuple):
    """What an item or alert means, what to check, what to do, how it ends."""

    name: str
    means: str
    check: str
    do: str
    resolves: str

    @property
    def line(self) -> str:
        """The first sentence of what to do."""
        return re.split(r"(?<=[.])\s", self.do, maxsplit=1)[0]


@cache
def sections() -> dict[str, RunbookSection]:
    """By name; empty where the service is installed without its documents."""
    path = settings.BASE_DIR / PATH
    if not path.exists():
        return {}
    return {found["name"]: _read(found["name"], found["text"]) for found in _section.finditer(path.read_text())}


def _read(name: str, text: str) -> RunbookSection:
    parts = {found["title"]: " ".join(found["text"].split()) for found in _part.finditer(text)}
    return RunbookSection(
        name, parts.get("Means", ""), parts.get("Check", ""), parts.get("Do", ""), parts.get("Resolves", "")
    )
