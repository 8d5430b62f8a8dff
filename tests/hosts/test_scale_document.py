"""The commands of docs/scale.md, run as they are written: hosts by role, the questions to each, and nginx in front of two of them."""

import asyncio
import re
import shlex
import shutil
import subprocess
import urllib.error
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.servers.processes import free_port
from tests.bed.running import PROJECT
from tests.hosts.estate import LIMIT, Estate, Host, estate
from tests.waiting import eventually

PAGE = (PROJECT / "docs" / "scale.md").read_text()
INSTALL = PROJECT / "docs" / "operators" / "install"
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines() if line.strip()
]
UPS = [line for line in COMMANDS if "manage.py up" in line]
CURLS = [line for line in COMMANDS if line.startswith("curl ")]
PUBLIC = "pay.example.com"


def options(command: str) -> list[str]:
    """Of `up`, without the port, which each host of a test has of its own."""
    words = shlex.split(command.partition("manage.py up ")[2])
    at = words.index("--port")
    return [*words[:at], *words[at + 2 :]]


def host(site: Estate, name: str, command: str) -> Host:
    # The processors of the test are on this machine, which a public service would not call.
    return site.host(name, *options(command), ALLOWED_HOSTS=f"{PUBLIC},127.0.0.1", WEBHOOK_ALLOW_PRIVATE="true").up()


@pytest.fixture(scope="module")
async def hosts() -> AsyncIterator[tuple[Estate, list[Host]]]:
    """web-1, web-2 and worker-1, as the page starts them."""
    assert len(UPS) == 2
    web, worker = UPS
    async with estate() as site:
        started = [host(site, "web-1", web), host(site, "web-2", web), host(site, "worker-1", worker)]
        await asyncio.gather(*(eventually(lambda one=one: healthy(one), within=2 * LIMIT) for one in started))
        yield site, started


def healthy(one: Host) -> bool:
    try:
        return one.is_up and one.ask("/health/ready")[0] == 200
    except (OSError, urllib.error.URLError):
        return False


def test_the_test_knows_every_command_of_the_page():
    assert set(COMMANDS) == {*UPS, *CURLS}
    assert len(CURLS) == 3


@pytest.mark.parametrize("command", CURLS)
async def test_a_host_answers_as_the_page_says(hosts: tuple[Estate, list[Host]], command: str):
    for one in hosts[1]:
        command = command.replace(f"http://{one.name}:8000", one.url)

    done = await asyncio.to_thread(subprocess.run, shlex.split(command), capture_output=True, text=True, timeout=LIMIT)

    assert done.returncode == 0, done.stderr
    assert "registry_host_info" in done.stdout if "metrics" in command else '"healthy"' in done.stdout


@contextmanager
def nginx(folder: Path, hosts: list[Host]) -> Iterator[int]:
    """nginx with the two files of the documents, without TLS. Its port."""
    port = free_port()
    upstream = (INSTALL / "registry.hosts.nginx.conf").read_text()
    for one in hosts:
        upstream = upstream.replace(f"{one.name}.internal:8000", f"127.0.0.1:{one.port}")
    text = (INSTALL / "registry.nginx.conf").read_text()
    text = re.sub(r"^upstream registry \{.*?^\}\n", lambda _: upstream, text, flags=re.M | re.S)
    text = re.sub(r"^server \{\n    listen 80;.*?^\}\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^    ssl_certificate.*\n", "", text, flags=re.M)
    text = text.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port};")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{text}}}\n"
    )
    running = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-e", folder / "errors"])
    try:
        yield port
    finally:
        running.terminate()
        running.wait(LIMIT)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on PATH (Debian has it in `nginx`)")
async def test_behind_nginx_payments_are_accepted_while_one_web_host_is_dead(
    hosts: tuple[Estate, list[Host]], tmp_path: Path
):
    site, [first, second, _] = hosts
    tmp_path.chmod(0o711)
    with nginx(tmp_path, [first, second]) as port:
        balancer = Host(site, "balancer")
        balancer.url = f"http://127.0.0.1:{port}"
        await eventually(lambda: balancer.ask("/health/live")[0] == 200)
        ids = [await site.pay(balancer) for _ in range(10)]
        assert all(sum(accepted(one)) > 0 for one in (first, second))  # both took some

        first.kill()
        ids += [await site.pay(balancer) for _ in range(20)]

        assert {(await site.settled(balancer, one))["status"] for one in ids} == {"succeeded"}


def accepted(one: Host) -> list[float]:
    return [
        float(n) for n in re.findall(r'registry_payments_accepted_total\{outcome="\w+"\} (\S+)', one.ask("/metrics")[1])
    ]
