"""Other clocks for programs of a service, by libfaketime (Debian's package faketime). child/sitecustomize.py starts them."""

from pathlib import Path

VARIABLE = "BED_CLOCKS"  # environment variable that names the folder
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def set_clock(folder: Path, word: str, seconds: int) -> None:
    """Programs with this word on their command line are off by so many seconds, from their next start on."""
    folder.mkdir(exist_ok=True)
    # The monotonic clock stays: it never jumps on a real machine either.
    lines = f"LD_PRELOAD {LIBRARIES[0]}", f"FAKETIME {seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC 1"
    (folder / word).write_text("\n".join(lines))


def reset_clock(folder: Path, word: str) -> None:
    (folder / word).unlink()
