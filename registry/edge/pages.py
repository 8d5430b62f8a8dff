"""The frame of every page: allowed methods, a database that is away, compression, and visitors without a tenant."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin
from django_htmx.middleware import HtmxDetails

from registry.data import database, db_breaker
from registry.data.loop import sync_twin
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Unavailable
from registry.models import Tenant

_gzip = GZipMiddleware(lambda _: HttpResponse())  # for pages only; it adds random padding against BREACH


class PageRequest(HttpRequest):
    """A request that has passed the pages' middleware."""

    htmx: HtmxDetails


type PageView = Callable[..., Awaitable[HttpResponse]]
type Answer = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def away(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """The page for a database that is away, if that is the reason of `error`."""
    refusal = error if isinstance(error, Unavailable) else database.unavailable(error)
    if refusal is None:
        return None
    response = render(request, "503.html", status=503)
    for name, value in refusal.headers.items():
        response[name] = value
    return response


class AwayMiddleware(MiddlewareMixin):
    """The same for Django's own pages: the admin and the sign-in. Where the database is known to be away, they are answered
    at once: reading the visitor's session would occupy a thread until that fails."""

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        found = db_breaker.current()
        if found.away and settings.SESSION_COOKIE_NAME in request.COOKIES:
            refused = away(request, Unavailable(found.reason))
            assert refused
            return refused
        return await super().__acall__(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return away(request, error)


def page(*methods: str) -> Callable[[PageView], Answer]:
    """An async page: other methods get a 405, a database that is away gets its own page, nothing is cached."""

    def wrap(view: PageView) -> Answer:
        @wraps(view)
        async def answer(request: PageRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            try:
                response = await view(request, *args, **kwargs)
            except Http404:  # not compressed: the padding would make two of them differ
                return await _not_found(request)
            except Exception as error:
                if (refused := away(request, error)) is None:
                    raise
                response = refused
            response.headers.setdefault("Cache-Control", "private, no-cache")
            patch_vary_headers(response, ["HX-Request", "Cookie"])
            return _gzip.process_response(request, response)

        return answer

    return wrap


async def _not_found(request: HttpRequest) -> HttpResponse:
    """The page of an unknown address, with the visitor's navigation."""
    return render(request, "404.html", {"visitor": await anybody(request)}, status=404)


async def anybody(request: HttpRequest) -> Visitor | None:
    """The visitor of a page for everybody; None for one without a tenant, and while the database is away."""
    try:
        return await visitor_of(request, guests=True, strict=False)
    except Exception as error:
        if not isinstance(error, Unavailable) and database.unavailable(error) is None:
            raise
        return None


_not_found_sync = sync_twin(_not_found)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler of addresses without a page, which it calls in a thread."""
    return _not_found_sync(request)


async def known(request: HttpRequest, *, guests: bool = False) -> Visitor:
    """The visitor; `guests` as in `visitor_of`. Raises Http404 for a visitor without a tenant."""
    if visitor := await visitor_of(request, guests=guests):
        return visitor
    raise Http404


async def nowhere(request: HttpRequest) -> HttpResponse:
    """The page for a visitor without a tenant: the sign-in, or a page that says so."""
    user = await request.auser()
    if user.is_authenticated:
        return render(
            request, "registry/nowhere.html", {"person": user.get_username(), "staff": user.is_staff}, status=403
        )
    return redirect(f"{settings.LOGIN_URL}?{urlencode({'next': request.get_full_path()})}")


# -- Addresses and example commands on pages ------------------------------------------------------------------------------


def console_address(name: str, *args: Any, tenant: str, **query: Any) -> str:
    """The address of a page of the console for a tenant."""
    return f"{reverse(name, args=args)}?{urlencode({'tenant': tenant, **query})}"


def address_of(request: HttpRequest) -> str:
    """The service's own address, for a command to be copied."""
    return settings.REGISTRY_URL.rstrip("/") or f"{request.scheme}://{request.get_host()}"


KEY_HEADER = " -H 'Authorization: Bearer YOUR_KEY'"


def key_header(tenant: Tenant) -> str:
    """The key's header of a curl command for `/payments*`; empty for the open tenant."""
    return "" if tenant.open and tenant.slug == settings.REGISTRY_OPEN_TENANT else KEY_HEADER
