"""The client as a package: generated from one source, independent of the project, typed, and built as wheel and sdist."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "client" / "src" / "registry_client"
ALLOWED = {"httpx2", "websockets", "msgspec", "registry_client", *sys.stdlib_module_names}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **{"cwd": PROJECT, **options})


def test_the_blocking_half_is_what_is_generated_from_the_asynchronous_one():
    done = run(sys.executable, "client/tools/generate.py", "--check")

    assert done.returncode == 0, done.stderr


def test_a_difference_between_the_halves_would_be_noticed(tmp_path: Path):
    copied = tmp_path / "client"
    subprocess.run(["cp", "-r", PROJECT / "client", copied], check=True)
    subprocess.run(["cp", PROJECT / "pyproject.toml", tmp_path], check=True)
    source = copied / "src" / "registry_client" / "_async" / "waiting.py"
    source.write_text(source.read_text().replace("it did not end in time", "too late"))

    done = run(sys.executable, str(copied / "tools" / "generate.py"), "--check")

    assert (done.returncode, "waiting.py" in done.stderr) == (1, True)


def test_the_package_imports_its_dependencies_and_nothing_of_the_project():
    foreign = {
        (str(file.relative_to(PACKAGE)), name)
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in imported(node)
        if name.split(".")[0] not in ALLOWED
    }

    assert foreign == set()


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_every_module_of_the_package_opens_with_a_sentence_and_is_short():
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        assert ast.get_docstring(ast.parse(text)), file
        assert text.count("\n") <= 350, file


def test_both_halves_have_the_same_methods():
    halves = [public_names(PACKAGE / half) for half in ("_async", "_sync")]

    assert halves[0] == halves[1]


def public_names(folder: Path) -> dict[str, set[str]]:
    """Public names by file, as the blocking half calls them."""
    renamed = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
    return {
        file.name: {
            renamed.get(node.name, node.name.removeprefix("Async"))
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        }
        for file in folder.glob("*.py")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the sdist, as `make client` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), "client")
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_the_wheel_holds_the_typed_package_and_can_be_used_without_the_project(built: Path):
    [wheel] = built.glob("registry_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    script = (
        "import sys, registry_client, registry_client.testing; "
        "print(registry_client.__file__, *(name for name in sys.modules if name.split('.')[0] in ('django', 'registry')))"
    )

    done = run(sys.executable, "-c", script, cwd="/", env={"PYTHONPATH": str(wheel)})

    assert done.stdout.split() == [f"{wheel}/registry_client/__init__.py"], done.stderr
    assert {"registry_client/py.typed", "registry_client/_sync/client.py"} <= set(names)
    assert any(name.endswith("METADATA") for name in names) and any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_the_source_and_the_generator(built: Path):
    [sdist] = built.glob("registry_client-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "README.md", "LICENSE", "tools/generate.py", "src/registry_client/py.typed"} <= names


def test_an_application_is_checked_against_the_clients_types(tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "from registry_client import AsyncClient, Client\n"
        "async def pay(client: AsyncClient) -> str:\n"
        "    return (await client.payments.submit('19.90')).status\n"
        "def wrong(client: Client) -> None:\n"
        "    client.payments.submit(19.9)\n"
        "    client.payments.submit('1', colour='red')\n"
    )

    done = run(
        sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "app.py", cwd=tmp_path,
        env={"MYPYPATH": str(PACKAGE.parent), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    assert [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line] == ["5", "6"], done.stdout
