"""Static files by WhiteNoise's rules (types, caching, compressed variants), served on the loop and without a session."""

import asyncio
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware

from registry.edge.handler import lean
from registry.errors import NotFound


@cache
def _known() -> WhiteNoiseMiddleware:
    """All files, listed once: files that are added later are not served."""
    return WhiteNoiseMiddleware()


def _read(file: Any, request: HttpRequest) -> HttpResponse:
    answer = file.get_response(request.method, request.META)
    content = b""
    if answer.file is not None:
        with answer.file as opened:
            content = opened.read()
    response = HttpResponse(content, status=int(answer.status))
    del response["Content-Type"]
    for name, value in answer.headers:
        if name.lower() != "content-length":  # the handler adds it
            response[name] = value
    return response


@lean
async def static(request: HttpRequest, path: str) -> HttpResponse:
    """`/static/…`: a file of the service itself."""
    file = _known().files.get(request.path_info)
    if file is None:
        raise NotFound
    return await asyncio.to_thread(_read, file, request)
