"""Static files by WhiteNoise's rules (types, caching, compressed variants), served on the loop and without a session.

Text without a compressed variant on disk is compressed once and kept: no step at installation makes variants.
"""

import asyncio
import gzip
from functools import cache, lru_cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
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
    if answer.status == 200 and content and response["Content-Type"].startswith("text/"):
        _compress(response, request, content)
    return response


def _compress(response: HttpResponse, request: HttpRequest, content: bytes) -> None:
    if response.has_header("Content-Encoding"):
        return
    patch_vary_headers(response, ["Accept-Encoding"])
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.content = _gzipped(content)
        response["Content-Encoding"] = "gzip"


@lru_cache(maxsize=100)  # files of our own, of some kilobytes
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@lean
async def static(request: HttpRequest, path: str) -> HttpResponse:
    """`/static/…`: a file of the service itself."""
    file = _known().files.get(request.path_info)
    if file is None:
        raise NotFound
    return await asyncio.to_thread(_read, file, request)
