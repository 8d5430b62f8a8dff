"""Data folder of a sandbox that is restarted: account, keys and, if it is free, the same port."""

import base64
import os
import secrets
from pathlib import Path

import msgspec


class Facts(msgspec.Struct, kw_only=True, rename="camel"):
    """Keys and address of the sandbox."""

    secret_key: str
    publishable_key: str
    webhook_secret: str
    shop_secret: str = (
        ""  # signs the webhooks of the payment service to the demo's shop; empty: the shop does not verify
    )
    port: int = 0  # port of the last start
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def load(home: Path) -> Facts | None:
    try:
        return msgspec.json.decode(path(home).read_bytes(), type=Facts)
    except (OSError, msgspec.MsgspecError):
        return None


def fresh() -> Facts:
    name = secrets.token_urlsafe(18).replace("-", "").replace("_", "")
    return Facts(
        secret_key=f"sk_test_{name}",
        publishable_key=f"pk_test_{name}",
        webhook_secret=f"whsec_{secrets.token_hex(16)}",
        shop_secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    )


def save(home: Path, facts: Facts) -> None:
    """Write a temporary file and rename it, so that readers never see a partial file; only the owner can read it."""
    home.mkdir(parents=True, exist_ok=True)
    temporary = path(home).with_suffix(f".{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(facts))
    temporary.replace(path(home))


def path(home: Path) -> Path:
    return home / "account.json"


def journal(home: Path) -> Path:
    return home / "journal"
