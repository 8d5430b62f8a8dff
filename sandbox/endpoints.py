"""Which function answers which request; the modules of the objects register theirs here."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sandbox import forms
from sandbox.errors import StripeError
from sandbox.state import State, Thing


class Call(NamedTuple):
    """A request that is allowed and understood."""

    state: State
    params: dict[str, Any]
    publishable: bool = False  # it came with the key that browsers know


class Endpoint(NamedTuple):
    method: str
    path: re.Pattern[str]
    spec: Mapping[str, Any]
    run: Callable[..., Thing]
    publishable: bool

    def read(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return forms.accept(self.spec, params)


ENDPOINTS: list[Endpoint] = []


def endpoint[F: Callable[..., Thing]](
    method: str, path: str, spec: Mapping[str, Any] | None = None, *, publishable: bool = False
) -> Callable[[F], F]:
    """`{}` in the path is an id, handed to the function after the call."""
    pattern = re.compile(re.escape(path).replace(r"\{\}", "([A-Za-z0-9_]+)"))

    def register(function: F) -> F:
        ENDPOINTS.append(Endpoint(method, pattern, {**(spec or {}), **forms.EXPAND}, function, publishable))
        ENDPOINTS.sort(key=lambda known: known.path.groups)  # `search` is no id
        return function

    return register


def find(method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
    """Raises StripeError (404)."""
    for known in ENDPOINTS:
        if known.method == method and (match := known.path.fullmatch(path)):
            return known, match.groups()
    raise StripeError(404, f"Unrecognized request URL ({method}: {path}).", remembered=False)
