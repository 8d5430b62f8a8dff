"""Which Python the service is installed with (Makefile), and what it says of it."""

import os
import platform
import subprocess
import sysconfig
from pathlib import Path

import pytest

from registry.servers import interpreter
from tests.bed.running import PROJECT

WANTED = (PROJECT / ".python-version").read_text().strip()


def pretend(folder: Path, name: str, says: str) -> Path:
    """An interpreter that prints this for what `make` asks it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says} {path}\n")
    path.chmod(0o755)
    return path


def chosen(*folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*map(str, folders), "/usr/bin", "/bin"])
    rule = ["--eval", "chosen: ; @$(FIND_PYTHON)", "CANDIDATES=", "chosen"]
    return subprocess.run(
        ["make", "-s", *rule], cwd=PROJECT, env={**os.environ, "PATH": path}, text=True, capture_output=True
    )


def test_the_faster_interpreter_of_the_wanted_version_is_chosen(tmp_path: Path):
    pretend(tmp_path / "one", f"python{WANTED}", "a 0.09")
    fast = pretend(tmp_path / "two", f"python{WANTED}", "a 0.04")
    pretend(tmp_path / "two", "python3.14", "b 0")

    assert chosen(tmp_path / "one", tmp_path / "two").stdout.strip() == str(fast)


def test_the_wanted_version_is_preferred_to_a_faster_one_of_another(tmp_path: Path):
    pretend(tmp_path / "one", "python3.14", "b 0")
    wanted = pretend(tmp_path / "two", f"python{WANTED}", "a 0.09")

    assert chosen(tmp_path / "one", tmp_path / "two").stdout.strip() == str(wanted)


def test_a_real_interpreter_is_asked_what_it_is(tmp_path: Path):
    folder = tmp_path / "real"
    folder.mkdir()
    base = Path(sysconfig.get_config_var("BINDIR")) / "python3"
    (folder / f"python{platform.python_version_tuple()[0]}").symlink_to(base)

    assert Path(chosen(folder).stdout.strip()).resolve() == base.resolve()


def test_without_a_suitable_one_it_says_what_is_needed(tmp_path: Path):
    pretend(tmp_path / "old", "python3", "")
    (tmp_path / "old" / "python3").write_text("#!/bin/sh\nexit 1\n")

    done = chosen(tmp_path / "old")

    if "needed" not in done.stderr:  # the machine's own Python is suitable
        pytest.skip(f"this machine has {done.stdout.strip()} on the standard path")
    assert done.returncode != 0
    assert "Python 3.12 or newer" in done.stderr


def test_it_is_said_whether_the_interpreter_was_built_with_optimisations(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": "'--enable-optimizations'"}.get)
    assert interpreter.describe() == f"Python {platform.python_version()}, built with optimisations"

    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": "'--enable-shared'"}.get)
    assert "name no optimisation" in interpreter.describe()
