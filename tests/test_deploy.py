"""docs/operators: unit, proxies, container, commands and capacity, as far as they can be checked without a network."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from queueing.api.plane import LONGEST_WAIT
from registry.edge import proxies
from registry.servers.serve import KEEP_ALIVE
from tests.bed.running import clean_environment
from tests.test_documents import bash, blocks, parse

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs" / "operators"
PAGE = "docs/operators/deploy.md"
INSTALL = FOLDER / "install"
NGINX = (INSTALL / "registry.nginx.conf").read_text()
ON_THE_WIRE = {name.decode() for name in proxies.HEADERS} & {
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
}


def block(language: str, start: str = "", file: str = PAGE) -> str:
    [found] = [text for name, text in blocks(language) if name == file and text.startswith(start)]
    return found


# -- systemd ---------------------------------------------------------------------------------------------------


def test_systemd_understands_the_unit(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH: the unit was not read by systemd")
    unit = tmp_path / "registry.service"
    text = (INSTALL / "registry.service").read_text().replace("/srv/registry", str(PROJECT))
    unit.write_text(text)

    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_waits_for_longer_than_the_service_takes_to_stop():
    [wait] = re.findall(r"^TimeoutStopSec=(\d+)$", (INSTALL / "registry.service").read_text(), re.M)

    assert "stops everything within 10 s" in (PROJECT / "docs" / "operators.md").read_text()
    assert int(wait) > 10


def test_the_environment_file_has_known_variables_only():
    names = re.findall(r"^#?([A-Z_]+)=", (INSTALL / "registry.env").read_text(), re.M)
    documented = (PROJECT / "docs" / "settings.md").read_text()

    assert [name for name in names if f"| `{name}` |" not in documented] == []
    assert {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ALLOWED_HOSTS", "REGISTRY_URL", "TRUSTED_PROXIES"} <= set(names)


# -- Capacity --------------------------------------------------------------------------------------------------

CAPACITY = (FOLDER / "capacity.md").read_text()


def test_the_connections_on_the_page_are_those_of_the_defaults():
    each = settings.DB_POOL_MAX + settings.DB_POOL_OVERFLOW + 1
    rows = re.findall(r"^\| \d cores \| (\d+) \| (\d+) \| (\d+) \|$", CAPACITY, re.M)

    assert len(rows) == 3
    assert [int(most) for _, _, most in rows] == [(int(web) + int(workers) + 2) * each for web, workers, _ in rows]


def test_the_disk_per_payment_on_the_page_is_the_measured_one():
    kept = json.loads((PROJECT / "bench" / "results" / "figures.json").read_text())
    [figure] = kept["disk"]["figures"]
    written = {name: int(each) for name, each in re.findall(r"^\| `(payments_\w+)` \| (\d+) \|$", CAPACITY, re.M)}

    assert written == {name: round(each) for name, each in figure["data"].items()}
    assert f"**{figure['value']:,.0f} bytes per payment**" in CAPACITY


@pytest.mark.parametrize(
    ("name", "number", "written"),
    [
        ("accept", 5, "128 connections | {:,.0f}/s"),
        ("accept", 4, "32 connections | {:,.0f}/s"),
        ("settle", 0, "a backlog | {:,.0f}/s"),
        ("webhooks-in", 2, "128 connections | {:,.0f}/s"),
        ("webhooks-out", 0, "delivers webhooks | {:,.0f}/s"),
    ],
)
def test_the_rates_on_the_page_are_the_measured_ones(name: str, number: int, written: str):
    kept = json.loads((PROJECT / "bench" / "results" / "figures.json").read_text())

    assert written.format(kept[name]["figures"][number]["value"]) in CAPACITY


# -- nginx and Caddy -------------------------------------------------------------------------------------------


def test_nginx_sets_or_removes_every_header_that_is_believed():
    set_ones = re.findall(r"proxy_set_header (\S+) ", NGINX)

    assert ON_THE_WIRE | {"host", "upgrade", "connection"} == {name.lower() for name in set_ones}
    assert "X-Forwarded-For $remote_addr;" in NGINX


def test_nginx_waits_longer_than_the_service_and_keeps_connections_for_less_long():
    [wait] = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    [kept] = re.findall(r"keepalive_timeout (\d+)s;", NGINX)
    [largest] = re.findall(r"client_max_body_size (\d+)m;", NGINX)

    assert int(wait) > LONGEST_WAIT / 1000
    assert int(kept) < KEEP_ALIVE
    assert int(largest) * 2**20 >= settings.MAX_PUSH_BODY


def test_nginx_understands_its_configuration(tmp_path: Path):
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not on PATH: the configuration was not read by nginx")
    certificate = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {tmp_path}/privkey.pem -out {tmp_path}/fullchain.pem -days 1 -subj /CN=pay.example.com"
    subprocess.run(certificate.split(), check=True, capture_output=True)
    text = NGINX.replace("/etc/letsencrypt/live/pay.example.com", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{text}\n}}\n")

    done = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "log"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_caddy_passes_everything_on_and_keeps_metrics_to_itself():
    text = block("text", "# /etc/caddy")

    assert text.count("{") == text.count("}")
    assert "reverse_proxy 127.0.0.1:8000" in text and "respond @metrics 403" in text


EVERYTHING = """
import registry.asgi, registry.urls, payments.demo.shop, queueing.work.worker
from django.template.loader import get_template
print(get_template("registry/docs.html").origin.name, registry.urls.__file__)
"""


# -- The container ---------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    lines = block("dockerfile").replace("\\\n", " ").splitlines()
    return [(one, rest) for one, _, rest in (line.partition(" ") for line in lines) if one.isupper()]


def command_of(instruction: str) -> list[str]:
    [text] = [rest for name, rest in instructions() if name == instruction]
    return json.loads(text[text.index("[") :])


def test_the_image_has_the_python_of_the_project_and_known_variables():
    version = (PROJECT / ".python-version").read_text().strip()
    documented = (PROJECT / "docs" / "settings.md").read_text()
    [environment] = [rest for name, rest in instructions() if name == "ENV"]
    names = [pair.partition("=")[0] for pair in shlex.split(environment)]

    assert f"python:{version}-slim" in block("dockerfile")
    assert [name for name in names if f"`{name}`" not in documented] == ["PYTHONUNBUFFERED"]
    assert dict(instructions())["VOLUME"] == "/data"


def test_what_the_image_copies_is_all_that_the_service_needs(tmp_path: Path):
    for name, rest in instructions():
        if name == "COPY":
            source, target = rest.split()
            copy = shutil.copytree if (PROJECT / source).is_dir() else shutil.copy
            copy(PROJECT / source, tmp_path / (target if copy is shutil.copytree else source))
    variables = {
        "REGISTRY_ID": "image",
        "DATABASE_URL": "postgres://nobody@127.0.0.1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    environ = clean_environment(
        SECRET_KEY="x" * 40, REGISTRY_DATA=str(tmp_path / "data"), PYTHONPATH=str(tmp_path), **variables
    )

    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", EVERYTHING],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path)) == 2


def test_the_image_starts_the_service_with_arguments_that_it_takes():
    program, script, *arguments = command_of("CMD")

    assert (program, script) == (".venv/bin/python", "manage.py")
    parse(arguments)
    assert dict(instructions())["EXPOSE"] == arguments[arguments.index("--port") + 1]


async def test_the_image_notices_whether_the_service_answers(server: str):
    async def exit_code(address: str) -> int:
        words = [word.replace("http://127.0.0.1:8000", address) for word in command_of("HEALTHCHECK")]
        return (await bash(shlex.join([sys.executable, *words[1:]]))).returncode

    assert await exit_code(server) == 0
    assert await exit_code("http://127.0.0.1:1") == 1


def test_commands_in_a_container_and_in_the_unit_have_arguments_that_are_understood():
    lines = [*block("text", "podman").splitlines(), *(INSTALL / "registry.service").read_text().splitlines()]
    commands = [line.partition("manage.py ")[2] for line in lines if "manage.py " in line]

    assert len(commands) == 2
    for command in commands:
        parse(shlex.split(command))
