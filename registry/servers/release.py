"""The version of the code that runs: of the package, with the commit where it runs from a checkout."""

import os
import subprocess
from functools import cache

from registry.servers.child import PROJECT

VERSION = "0.1.0"  # as in pyproject.toml
GIT_LIMIT = 2.0  # seconds


@cache
def version() -> str:
    """REGISTRY_VERSION where it is set, such as by an image without a checkout."""
    return os.environ.get("REGISTRY_VERSION") or "+".join(filter(None, [VERSION, _commit()]))


def _commit() -> str:
    """Empty without git, or in a checkout of another user, which git refuses to read."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short=10", "HEAD"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=GIT_LIMIT)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()
