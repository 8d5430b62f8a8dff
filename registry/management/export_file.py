"""Output of an export: lines to a stream or file, or a zip with a member per table. Only the owner may read the file."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase
from typing import IO, Any

from registry.tenants.export import tagged

OWNER_ONLY = 0o600

type Write = Callable[[str, Sequence[str]], None]


@contextmanager
def sink(output: str, stdout: Any) -> Iterator[Write]:
    """A function that writes lines of a table. It expects all lines of a table before the next table."""
    if output == "-":
        yield lambda table, lines: stdout.write("".join(tagged(table, lines)), ending="")
        return
    with _private(output) as file:
        if output.endswith(".zip"):
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, ExitStack() as members:
                yield _Members(archive, members).write
        else:
            yield lambda table, lines: file.writelines(line.encode() for line in tagged(table, lines))


def _private(path: str) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY), "wb")


class _Members:
    """Writes the members of an archive, one table at a time."""

    def __init__(self, archive: zipfile.ZipFile, members: ExitStack) -> None:
        self.archive, self.members = archive, members
        self.table = ""
        self.file: IO[bytes] | BufferedIOBase | None = None

    def write(self, table: str, lines: Sequence[str]) -> None:
        if table != self.table or self.file is None:
            self.members.close()
            self.table = table
            self.file = self.members.enter_context(self.archive.open(f"{table}.ndjson", "w", force_zip64=True))
        self.file.writelines(f"{line}\n".encode() for line in lines)
