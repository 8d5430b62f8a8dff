"""Job kind `http`: a signed request (Standard Webhooks) to an address of the tenant's. Contract section 6."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from queueing.jobs import addresses
from queueing.jobs.addresses import Faults
from queueing.jobs.http_clients import CLIENTS
from queueing.jobs.kinds import LONGEST_TIMEOUT, Context, JobFailed, JobRetry, kind
from queueing.jobs.processes.output import texts_in, without
from queueing.outbound import job_secret
from queueing.outbound.outcomes import words_for
from queueing.outbound.retries import retry_after
from registry.data import clock
from registry.http import signatures
from registry.http.client import Answer, BadAddress, HttpError
from registry.http.ssrf import LONGEST_URL, parted
from registry.models import Tenant
from registry.tenants.access import Principal

MOST_HEADERS = 64
LONGEST_WAIT = 3600.0  # seconds that a Retry-After puts the next attempt off
SHOWN = 200  # characters of a refusal's body in the job's error
PASSING = frozenset({408, 429})  # statuses below 500 after which the request is sent again
AGENT = "Registry-Jobs/1"
OURS = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers of the connection (RFC 9110), and those that the client sets. So are all that begin with `webhook-`."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[ -~]*")


class HttpCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of a job of kind `http`."""

    url: Annotated[
        str, Meta(min_length=1, max_length=LONGEST_URL, description="https:// for live tenants; no redirects")
    ]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Annotated[
        dict[str, str], Meta(max_length=MOST_HEADERS, description="encrypted at rest, and not shown again")
    ] = {}
    body: Annotated[Any, Meta(description="any JSON; null: no body")] = None


async def check(principal: Principal, request: HttpCall) -> Faults:
    """Faults of the input: of its address, headers and body."""
    faults = await addresses.faults_of(request.url, mode=principal.mode, field="url")
    if request.body is not None and request.method in ("GET", "HEAD"):
        faults.append({"field": "body", "message": f"a {request.method} request has none"})
    return faults + [{"field": "headers", "message": fault} for fault in _header_faults(request.headers)]


def _header_faults(headers: dict[str, str]) -> list[str]:
    faults = []
    names = [name.lower() for name in headers]
    for name, value in headers.items():
        shown = repr(name[:50])
        if not _NAME.fullmatch(name):
            faults.append(f"{shown} is no name of a header")
        elif name.lower() in OURS or name.lower().startswith("webhook-"):
            faults.append(f"{shown} is set by the service")
        elif names.count(name.lower()) > 1:
            faults.append(f"{shown} is there twice")
        elif not _VALUE.fullmatch(value):
            faults.append(f"the value of {shown} has other than visible ASCII characters")
    return faults


@kind("http", input=HttpCall, runs="loop", secret=("headers",), addresses=("url",), check=check)
async def send(context: Context, request: HttpCall) -> dict[str, Any]:
    """Send a signed HTTP request to an address of yours; the result is the answer."""
    answer = await _answer(context, request)
    if 200 <= answer.status < 300:
        return {"status": answer.status, "headers": _headers(answer), "body": _body(answer.body)}
    raise _refused(answer, request)


async def _answer(context: Context, request: HttpCall) -> Answer:
    mode, secrets = await job_secret.signing(context.tenant_id)
    body = "" if request.body is None else msgspec.json.encode(request.body).decode()
    now = clock.now()
    headers = {
        **({"content-type": "application/json"} if body else {}),
        "user-agent": AGENT,
        **{name.lower(): value for name, value in request.headers.items()},
        **signatures.headers(secrets.signing(now), str(context.job_id), now, body),
    }
    try:
        origin, target = parted(request.url, tls_only=mode == Tenant.Mode.LIVE)
        async with CLIENTS.get().client(context.tenant_id, origin) as client:
            # The job's own time-out ends first.
            return await client.request(request.method, target, body.encode(), limit=LONGEST_TIMEOUT, headers=headers)
    except HttpError as error:
        raise _unanswered(error) from error


def _unanswered(error: HttpError) -> JobFailed | JobRetry:
    detail = words_for(error, within=LONGEST_TIMEOUT)
    if isinstance(error, BadAddress) or isinstance(error.__cause__, BadAddress):
        return JobFailed(detail, code="address_refused")
    return JobRetry(detail, code="no_answer")


def _refused(answer: Answer, request: HttpCall) -> JobFailed | JobRetry:
    # The secrets that it repeats are hidden before the text is cut: a part of one would not be found.
    said = without(texts_in(request.headers), answer.body.decode(errors="replace"))[:SHOWN].strip()
    code = f"http_{answer.status}"
    detail = f"answered {answer.status}: {said}" if said else f"answered {answer.status}"
    if answer.status >= 500 or answer.status in PASSING:
        asked = retry_after(answer.header("retry-after")) or 0.0
        return JobRetry(detail, code=code, after=min(asked, LONGEST_WAIT))
    return JobFailed(detail, code=code)


def _headers(answer: Answer) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers.items()}


def _body(body: bytes) -> Any:
    """The body itself where it is JSON, else its text."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace").replace("\0", "\ufffd")
    return msgspec.Raw(body)
