"""Parts of console pages that other apps add by name, such as invitations on the page of the team."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.http import Http404, HttpResponse

from registry.edge.pages import PageRequest, nowhere
from registry.edge.viewer import Visitor, visitor_of
from registry.operators.confirm import asked

TEAM, SETTINGS = "team", "settings"  # the pages that take parts


class Show(Protocol):
    def __call__(self, *, status: int = 200, **more: Any) -> Awaitable[HttpResponse]:
        """The whole page; `more` is added to the context of the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePart:
    """A section of a page, and what its forms do. A part without a context for a visitor is not shown to them."""

    page: str
    name: str
    order: int
    template: str
    context: Callable[[PageRequest, Visitor], Awaitable[dict[str, Any] | None]]
    verbs: frozenset[str] = frozenset()  # values of `do` that are handed to `act`
    act: Callable[[PageRequest, Visitor, Show], Awaitable[HttpResponse]] | None = field(default=None)


_parts: dict[str, PagePart] = {}


def register(part: PagePart) -> None:
    _parts[part.name] = part


def acting(page: str, verb: str) -> PagePart | None:
    """The part of a page that does `verb`."""
    return next((part for part in _parts.values() if part.page == page and verb in part.verbs and part.act), None)


async def answer(
    page: str,
    request: PageRequest,
    *,
    show: Callable[..., Awaitable[HttpResponse]],
    act: Callable[[PageRequest, Visitor, str], Awaitable[HttpResponse]],
) -> HttpResponse:
    """A page that takes parts. `show(request, visitor, status=…, more=…)` is the page, for members. What a form does (`do`) is for
    owners: that of a part is carried out by the part, anything else by `act`, which raises Http404 for what it does not know."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    verb = asked(request).get("do")
    if verb is None and request.method != "POST":
        return await show(request, visitor)
    if not visitor.may_own:
        raise Http404
    if part := acting(page, verb or ""):
        assert part.act

        async def with_part(*, status: int = 200, **more: Any) -> HttpResponse:
            return await show(request, visitor, status=status, more={part.name: more})

        return await part.act(request, visitor, with_part)
    return await act(request, visitor, verb or "")


async def shown(
    page: str, request: PageRequest, visitor: Visitor, more: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The parts of a page as its template includes them; `more`: by a part's name, what is added to its context."""
    found = []
    for part in sorted((part for part in _parts.values() if part.page == page), key=lambda part: part.order):
        context = await part.context(request, visitor)
        if context is not None:
            found.append({"template": part.template, "given": context | more.get(part.name, {})})
    return found
