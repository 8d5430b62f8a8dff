"""Registry of API endpoints: method and path to function."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sandbox import forms
from sandbox.errors import StripeError
from sandbox.state import State, Thing


class Call(NamedTuple):
    """An authenticated request with parsed parameters."""

    state: State
    params: dict[str, Any]
    publishable: bool = False  # sent with the publishable key


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
    """Register an endpoint. `{}` in the path is an id, passed to the function after the call."""
    pattern = re.compile(re.escape(path).replace(r"\{\}", "([A-Za-z0-9_]+)"))

    def register(function: F) -> F:
        ENDPOINTS.append(Endpoint(method, pattern, {**(spec or {}), **forms.EXPAND}, function, publishable))
        ENDPOINTS.sort(key=lambda known: known.path.groups)  # fixed paths such as `search` before ids
        return function

    return register


def find(method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
    """The endpoint of a request and the ids in its path. Raises StripeError (404)."""
    for known in ENDPOINTS:
        if known.method == method and (match := known.path.fullmatch(path)):
            return known, match.groups()
    raise StripeError(404, f"Unrecognized request URL ({method}: {path}).", remembered=False)
