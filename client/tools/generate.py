"""Generate the blocking half of the client, `_sync`, from the asynchronous one, `_async`: unasync, then ruff.

python client/tools/generate.py           write it
python client/tools/generate.py --check   exit with 1 if the files differ from what would be written
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).parents[1] / "src" / "registry_client"
ROOT = Path(__file__).parents[2]
NAMES = {
    "_async": "_sync",
    "asynchronous": "blocking",
    "aclose": "close",
    "aclosing": "closing",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncBaseTransport": "BaseTransport",
}
OPENING = '"""Generated from _async by client/tools/generate.py: change it there."""\n'


def replacements() -> dict[str, str]:
    """The names to replace: a class AsyncX of ours is X in the blocking half, as are those of httpx2."""
    text = "".join(file.read_text() for file in sources())
    ours = {name: name.removeprefix("Async") for name in re.findall(r"\b(?:class|type) (Async\w+)", text)}
    return {**NAMES, **ours}


def sources() -> list[Path]:
    return sorted((PACKAGE / "_async").glob("*.py"))


def generate(folder: Path) -> None:
    """Write the blocking half into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    rule = unasync.Rule(f"{PACKAGE}/_async/", f"{folder}/", additional_replacements=replacements())
    unasync.unasync_files([str(file) for file in sources()], [rule])
    for file in folder.glob("*.py"):
        file.write_text(OPENING if file.name == "__init__.py" else _awaitless(file.read_text()))
    for arguments in (["check", "--select", "I,UP028", "--fix", "--unsafe-fixes", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", arguments[0], "--config", str(ROOT / "pyproject.toml")]
        subprocess.run([*command, *arguments[1:], str(folder)], check=True, cwd=ROOT)


def _awaitless(text: str) -> str:
    """Types of results that are awaited in the asynchronous half only."""
    return re.sub(r"Awaitable\[((?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*)\]", r"\1", text).replace(
        "Awaitable, Callable", "Callable"
    )


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("*.py"))}


def drifted() -> list[str]:
    """Names of generated files that are not what would be generated."""
    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary) / "_sync")
        wanted, found = contents(Path(temporary) / "_sync"), contents(PACKAGE / "_sync")
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main() -> int:
    if "--check" not in sys.argv[1:]:
        generate(PACKAGE / "_sync")
        return 0
    different = drifted()
    for name in different:
        print(f"_sync/{name} differs from what is generated: run `make client-sync`", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
