"""The commands of docs/scale.md, run as they are written: hosts by role, what they do for each other, the questions to each, and nginx
in front of two of them. One set of hosts for all tests of this file, which end them one after the other."""

import asyncio
import json
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
from tests.bed.traces import TraceReceiver
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


@pytest.fixture(scope="module")
async def traces() -> AsyncIterator[TraceReceiver]:
    async with TraceReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def hosts(traces: TraceReceiver) -> AsyncIterator[tuple[Estate, list[Host]]]:
    """web-1, web-2 and worker-1, as the page starts them."""
    assert len(UPS) == 2
    web, worker = UPS
    settings = {
        "ALLOWED_HOSTS": f"{PUBLIC},127.0.0.1",
        "WEBHOOK_ALLOW_PRIVATE": "true",  # the processors are on this machine, which a public service would not call
        "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
        "OTEL_SERVICE_NAME": "shop",
        "TRACE_SAMPLE_RATE": "1",
    }
    async with estate() as site:
        commands = (("web-1", web), ("web-2", web), ("worker-1", worker))
        started = [site.host(name, *options(command), **settings).up() for name, command in commands]
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


async def test_a_payment_passes_a_web_host_and_a_worker_host(hosts: tuple[Estate, list[Host]]):
    site, [web, second, worker] = hosts

    payment = await site.settled(web, await site.pay(web))

    assert payment["status"] == "succeeded"
    assert web.parts("worker") == second.parts("worker") == worker.parts("registry.asgi:application") == []
    assert site.sql("SELECT DISTINCT hostname FROM queueing_worker WHERE queue = 'payments'") == [("worker-1",)]
    text = (await asyncio.to_thread(worker.ask, "/metrics"))[1]
    assert 'registry_payments_settled_total{outcome="succeeded"} 1.0' in text  # counted by its workers


async def test_each_host_says_what_it_is_and_raises_no_false_alarm(hosts: tuple[Estate, list[Host]]):
    site, [web, second, worker] = hosts
    roles = {one.name: one.get("/health/ready") for one in (web, second, worker)}
    assert {name: (said["host"], said["role"]) for name, said in roles.items()} == {
        "web-1": ("web-1", "web"),
        "web-2": ("web-2", "web"),
        "worker-1": ("worker-1", "worker"),
    }
    assert (await asyncio.to_thread(worker.ask, "/payments", key=site.key))[0] == 404
    texts = [(await asyncio.to_thread(one.ask, "/metrics"))[1] for one in (web, worker)]
    assert 'registry_host_info{host="web-1",role="web"' in texts[0]
    assert 'registry_host_process_running{host="worker-1",process="worker-1"} 1.0' in texts[1]

    evaluated = "SELECT host FROM registry_alertwatch ORDER BY 1"
    await eventually(lambda: site.sql(evaluated) == [("",), ("web-1",), ("web-2",), ("worker-1",)])
    assert site.sql("SELECT rule, host FROM registry_alert WHERE status = 'firing'") == []
    found = site.sql("SELECT name, role, heartbeat_at > now() - interval '5 s' FROM registry_host ORDER BY 1")
    assert found == [("web-1", "web", True), ("web-2", "web", True), ("worker-1", "worker", True)]
    lines = [json.loads(line.partition("] ")[2]) for line in worker.log.splitlines() if line.startswith("[worker-1] {")]
    assert {(line["host"], line["process"]) for line in lines} == {("worker-1", "worker-1")}


async def test_a_second_host_of_the_same_name_or_with_another_key_does_not_start(hosts: tuple[Estate, list[Host]]):
    site, _ = hosts
    again = site.host("web-1 again", "--role", "web", REGISTRY_HOST="web-1").up()
    stranger = site.host("stranger", "--role", "web", SECRET_KEY="another-key-" + "x" * 40).up()
    said = [await asyncio.to_thread(one.ended) for one in (again, stranger)]

    assert "a host named web-1 runs already" in said[0]
    assert "SECRET_KEY is not the one of host" in said[1]


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


async def test_a_web_host_is_ready_while_no_worker_is_alive_and_both_send_the_spans_that_wait_when_they_end(
    hosts: tuple[Estate, list[Host]], traces: TraceReceiver
):
    site, [_, web, worker] = hosts
    payment = await site.pay(web)
    await site.settled(web, payment)
    assert await worker.stop() == 0

    await eventually(lambda: web.ask("/health")[0] == 503)
    assert web.ask("/health/ready")[0] == 200
    assert (
        site.sql("SELECT name FROM registry_host WHERE name = 'worker-1'") == []
    )  # one that was stopped is not missed

    assert await web.stop() == 0
    [request] = [one for one in traces.named("POST /payments") if one.attributes["registry.payment.id"] == payment]
    spans = {one.name: one for one in traces.of(request.trace_id) if one.name != "POST"}
    send = spans["send payments"]
    assert set(spans) == {"POST /payments", "accept payments", "claim payments", "send payments", "settle payments"}
    assert send.parent == request.span_id
    assert request.resource["service.name"] == send.resource["service.name"] == "shop"
    assert request.resource["process.pid"] != send.resource["process.pid"]
