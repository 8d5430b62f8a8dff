"""Other clocks for programs of a service, by libfaketime (Debian's package faketime). child/sitecustomize.py starts them."""

from pathlib import Path

VARIABLE = "BED_CLOCKS"  # environment variable that names the folder
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def set_clock(folder: Path, word: str, seconds: int) -> None:
    """Programs with this word on their command line are off by so many seconds, from their next start on."""
    folder.mkdir(exist_ok=True)
    (folder / word).write_text("\n".join(f"{name} {value}" for name, value in variables(seconds).items()))


def variables(seconds: int) -> dict[str, str]:
    """The environment of a program whose clock is off."""
    # The monotonic clock stays: it never jumps on a real machine either.
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def reset_clock(folder: Path, word: str) -> None:
    (folder / word).unlink()
