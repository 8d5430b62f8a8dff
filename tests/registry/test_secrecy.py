"""The search for secrets in the log of every test finds them."""

import logging
from uuid import uuid4

import pytest

from registry.redaction import redact
from registry.tenants import encryption, links
from tests import secrecy
from tests.conftest import make_key

log = logging.getLogger("some.room")


async def made(tenant, kind: str) -> str:
    match kind:
        case "a key":
            return await make_key(tenant)
        case "a link's token":
            return links.token_of(tenant.pk, uuid4())
        case _:
            encryption.seal({"secretKey": "hush-hush-hush"}, place="here")
            return "hush-hush-hush"


@pytest.mark.parametrize("kind", ["a key", "a link's token", "a sealed secret"])
async def test_a_secret_in_the_log_is_found(tenant, monkeypatch, kind: str):
    secret = await made(tenant, kind)
    ours = secrecy._handler.formatter
    secrecy._handler.setFormatter(logging.Formatter("%(message)s"))  # one that cleans nothing
    try:
        log.warning("it is %s", secret)
        found = secrecy.logged()
    finally:
        secrecy._handler.setFormatter(ours)

    assert secret in found[0]


async def test_a_redacted_secret_is_not_found(tenant):
    key = await make_key(tenant)

    log.warning("it is %s", key)

    assert redact(key) != key
    assert secrecy.logged() == []
