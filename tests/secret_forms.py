"""Where secrets stand in a text: by what they are, or by their form. Without Django, for programs that only start a service."""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path


def around(secrets: Iterable[str], text: str) -> list[str]:
    """Where the secrets stand in `text`, with what is around them."""
    places = ((text.find(secret), secret) for secret in secrets if text)
    return [text[max(0, at - 200) : at + len(secret) + 200] for at, secret in places if at >= 0]


# What nobody may see of a service in other processes, whoever made it.
_FORMS = re.compile(r"(?:rk_[0-9a-f]{12}_|sk_(?:test|live)_|whsec_|[?&]token=|/invitation/)(?!\[redacted\])[\w.-]+")


def in_log(data: Path, text: str, *secrets: str) -> list[str]:
    """Where the log of a service with a data folder of its own holds its secrets, or anything of the form of one."""
    return [*around({*secrets, *_of_folder(data)}, text), *(found[0] for found in _FORMS.finditer(text))]


def _of_folder(data: Path) -> set[str]:
    files = [data / "secret_key", data / "demo.json", data / "embedded.json", *data.glob("stripe/account.json")]
    words = (re.split(r"[^\w.+/=-]+", path.read_text()) for path in files if path.exists())
    return {word for word in chain.from_iterable(words) if len(word) >= 16 and not word.startswith(("pk_", "/"))}
