"""SECRET_KEY and SECRET_KEY_FALLBACKS: what signs links and sessions, and encrypts what is sealed at rest."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def secret_key(data: Path, *, debug: bool) -> str:
    """SECRET_KEY from the environment, else one generated once into the folder `data`."""
    if key := os.environ.get("SECRET_KEY"):
        if len(key) < 32 and not debug:
            raise ImproperlyConfigured("SECRET_KEY wants at least 32 characters when DEBUG is off")
        return key
    path = data / "secret_key"
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(64))
        try:
            os.link(fresh, path)  # the first of several processes wins
        except FileExistsError:
            pass
        fresh.unlink()
    return path.read_text().strip()


def secret_key_fallbacks(*, debug: bool) -> list[str]:
    """Earlier keys from the environment: they still decrypt and verify. The error repeats none."""
    keys = [key for part in os.environ.get("SECRET_KEY_FALLBACKS", "").split(",") if (key := part.strip())]
    if any(len(key) < 32 for key in keys) and not debug:
        raise ImproperlyConfigured("SECRET_KEY_FALLBACKS wants at least 32 characters for each key when DEBUG is off")
    return keys
