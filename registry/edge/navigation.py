"""Navigation of the console: the entries at the side of every page. Each app registers those of its own pages in its urls.py."""

from dataclasses import dataclass
from itertools import groupby

from registry.edge.viewer import MAY_ACT, MAY_OWN, Visitor

GROUPS = ("", "Operations", "Developers", "Account")  # headings, in this order; the first entries stand without one
EVERYBODY = "everybody"  # guests of the open tenant too
MEMBERS = "members"
OPERATORS = "operators"  # owners too
OWNERS = "owners"


@dataclass(frozen=True, slots=True, kw_only=True)
class NavigationEntry:
    """A link to a page, and the addresses of the pages below it."""

    label: str
    path: str
    group: str = ""
    order: int  # within its group
    below: tuple[str, ...] = ()  # beginnings of other addresses at which this entry is the current one
    shown_to: str = MEMBERS
    tenant: bool = True  # whether the address takes `?tenant=`


_entries: dict[str, NavigationEntry] = {}  # by path


def register(*entries: NavigationEntry) -> None:
    """Add entries to the navigation."""
    for entry in entries:
        _entries[entry.path] = entry


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry as it is shown to a visitor."""

    label: str
    address: str
    current: bool


def groups_for(visitor: Visitor, path: str) -> list[tuple[str, list[Shown]]]:
    """The groups of entries that a visitor may open, as (heading, entries); `path` is the address of the page."""
    current = current_entry(path)
    mine = sorted(
        (e for e in _entries.values() if _may_open(visitor, e)), key=lambda e: (GROUPS.index(e.group), e.order)
    )
    return [
        (group, [Shown(e.label, _address(e, visitor), e is current) for e in entries])
        for group, entries in groupby(mine, key=lambda e: e.group)
    ]


def current_entry(path: str) -> NavigationEntry | None:
    """The entry to which the page at `path` belongs: the one with the longest beginning in common."""
    found: tuple[int, NavigationEntry | None] = (0, None)
    for entry in _entries.values():
        for start in (entry.path, *entry.below):
            if len(start) > found[0] and (path == start or (start != "/" and path.startswith(f"{start}/"))):
                found = len(start), entry
    return found[1]


def _may_open(visitor: Visitor, entry: NavigationEntry) -> bool:
    if entry.shown_to == EVERYBODY:
        return True
    roles = {OPERATORS: MAY_ACT, OWNERS: MAY_OWN}.get(entry.shown_to)
    return bool(visitor.role) if roles is None else visitor.role in roles


def _address(entry: NavigationEntry, visitor: Visitor) -> str:
    return f"{entry.path}?tenant={visitor.tenant.slug}" if entry.tenant else entry.path
