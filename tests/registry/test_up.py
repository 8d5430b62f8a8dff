"""`up` and the supervisor under it: real processes, real signals. Stand-in parts show what the supervisor does with
any part; the last tests run the service itself."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError

from registry.management.commands.up import refuse_strangers, warn_of_unknown_proxies
from registry.servers import embedded
from registry.servers.processes import children, free_port
from tests.bed import template
from tests.bed.running import LIMIT, PROJECT, Running, clean_environment, gone_within_limit, is_alive

EXIT_LIMIT = 10.0  # seconds, as promised

# Parts that stand in for web, worker and the like, as `python -c` programs. Each prints its process number first.
SAY = "import os, signal, socket, subprocess, sys, time; print('pid', os.getpid(), flush=True)\n"
STAND_INS = {
    "web": """
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = server.accept()
    connection.recv(1000)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')
    connection.close()
""",
    "idle": "time.sleep(600)",
    "dying": "time.sleep(0.1); sys.exit(3)",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
    "parent": """
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
print('child', child.pid, flush=True)
time.sleep(600)
""",
    "talker": """
sys.stdout.write('half'); sys.stdout.flush()
time.sleep(0.1)
print(' and half'); print('bad', file=sys.stderr)
time.sleep(600)
""",
}

# What `up` does after the servers and the schema are there, with the parts named on the command line.
SUPERVISE = """
import asyncio, json, logging, sys
from pathlib import Path
from registry.servers import child, listening, supervisor, worker_group
from registry.servers.plan import ServicePlan, environment
from registry.servers.child import Part
logging.basicConfig(level="INFO", format="%(message)s")
facts = json.loads(sys.argv[1])
child.STOP_LIMIT, worker_group.SCALE_EVERY, worker_group.SHRINK_AFTER = 1.0, 0.05, 0.1
async def wanted(least, most):
    return int((Path(facts["data"]) / "wanted").read_text())
listener = listening.listen("127.0.0.1", 0)
plan = ServicePlan(Path(facts["data"]), port=listener.getsockname()[1], workers=facts["workers"], max_workers=3)
def part(name, program, *arguments):
    return Part(name, (sys.executable, "-c", program, *arguments))
web = Part("web", (sys.executable, "-c", facts["parts"].pop("web"), str(listener.fileno())), (listener.fileno(),))
wholly = [web, *(part(name, program) for name, program in facts["parts"].items())]
asyncio.run(supervisor.Supervisor(plan, wholly, environment(plan), lambda *_: wanted,
    worker=lambda slot: part(f"worker-{slot}", facts["idle"])).run())
"""


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        return answer.status


def read(url: str, key: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        return answer.read().decode()


# The supervisor, with stand-ins -----------------------------------------------------------------------------------


@pytest.fixture
def supervise(tmp_path):
    """Run the supervisor with the stand-ins named; servers are the user's own, so none are started."""
    started: list[Running] = []
    environ = clean_environment(DATABASE_URL="postgres://a@127.0.0.1:1/b", REDIS_URL="redis://127.0.0.1:1/0")

    def start(*names: str, workers: int = 0) -> Running:
        parts = {name: SAY + STAND_INS[name] for name in ("web", *names)}
        idle = SAY + STAND_INS["idle"]
        facts = {"data": str(tmp_path), "parts": parts, "idle": idle, "workers": workers}
        started.append(Running([sys.executable, "-c", SUPERVISE, json.dumps(facts)], tmp_path, environ))
        return started[-1]

    yield start
    for running in started:
        running.close()


def test_ready_is_one_line_on_stdout_once_the_web_answers(supervise):
    running = supervise("idle")

    assert get(running.url()) == 200
    assert running.out.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_with_status_0_and_nothing_behind(supervise, number):
    running = supervise("idle")
    running.url()
    pids = [running.number("web"), running.number("idle")]

    status, _ = running.exit(number)

    assert status == 0
    assert not any(map(is_alive, pids))


def test_lines_of_a_part_carry_its_name_and_stay_whole(supervise):
    running = supervise("talker")

    assert running.says("[talker] half and half\n")
    assert running.says("[talker] bad\n")


def test_a_part_that_was_killed_is_started_again_and_the_log_says_so(supervise):
    running = supervise("idle")
    os.kill(running.number("idle"), signal.SIGKILL)

    assert running.says("idle ended (signal 9), starting it again in 0.2 s")
    assert is_alive(running.number("idle", time=2))


def test_a_part_that_dies_at_once_is_tried_ever_more_slowly(supervise):
    running = supervise("dying")

    for pause in ("0.2", "0.4", "0.8"):
        assert running.says(f"dying ended (status 3), starting it again in {pause} s")


def test_connections_wait_while_the_web_is_restarted(supervise):
    running = supervise()
    url = running.url()
    os.kill(running.number("web"), signal.SIGKILL)
    running.says("web ended")

    assert [get(url) for _ in range(3)] == [200, 200, 200]


def test_a_part_that_does_not_listen_is_killed(supervise):
    running = supervise("stubborn")
    running.says("[stubborn] deaf")
    pid = running.number("stubborn")

    status, seconds = running.exit()

    assert (status, is_alive(pid)) == (0, False)
    assert seconds < EXIT_LIMIT


def test_what_a_killed_part_left_in_a_session_of_its_own_goes_too(supervise):
    running = supervise("parent")
    child = running.number("parent", "child")
    os.kill(running.number("parent"), signal.SIGKILL)
    running.number("parent", time=2)

    status, _ = running.exit()

    assert (status, is_alive(child)) == (0, False)


def test_parts_stop_when_the_supervisor_is_killed(supervise):
    running = supervise("idle")
    pids = [running.number("web"), running.number("idle")]

    running.popen.kill()
    running.popen.wait()

    assert all(map(gone_within_limit, pids))


@pytest.fixture
def queue_wants(tmp_path):
    """What the queue answers from now on, when asked how many workers it wants; before the first call it is away."""

    def want(count: int) -> None:
        (tmp_path / "new").write_text(str(count))
        (tmp_path / "new").rename(tmp_path / "wanted")

    return want


def test_workers_follow_what_the_queue_wants(supervise, queue_wants):
    running = supervise(workers=1)
    queue_wants(3)
    workers = [running.number(f"worker-{slot}") for slot in (1, 2, 3)]

    queue_wants(1)

    assert gone_within_limit(workers[2]) and gone_within_limit(workers[1])
    assert is_alive(workers[0])


def test_workers_stay_within_their_limits(supervise, queue_wants):
    running = supervise(workers=2)
    queue_wants(99)
    third = running.number("worker-3")
    queue_wants(0)

    assert gone_within_limit(third)
    assert "worker-4" not in running.log and "stopping worker-2" not in running.log


def test_a_queue_nobody_can_ask_changes_nothing(supervise, queue_wants, tmp_path):
    running = supervise(workers=1)
    queue_wants(2)
    second = running.number("worker-2")
    (tmp_path / "wanted").unlink()

    os.kill(second, signal.SIGKILL)

    assert is_alive(running.number("worker-2", time=2))


# The service itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def empty():
    folder = template.empty_folder()
    yield folder
    embedded.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture
def data(empty):
    """A data folder in which everything is made already, so that a start is short."""
    template.fill(empty)
    return empty


@pytest.fixture
def up(empty, monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    started: list[Running] = []

    def start(data: Path, *arguments: str) -> Running:
        command = [sys.executable, "manage.py", "up", *(arguments or ("--port", "0"))]
        started.append(Running(command, data, clean_environment(REGISTRY_DATA=str(data))))
        return started[-1]

    yield start
    for running in started:
        running.close()


def processes_naming(data: Path) -> list[int]:
    """Everything that was started for this data folder."""
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [number for number in numbers if mentions(number, str(data).encode())]


def mentions(pid: int, text: bytes) -> bool:
    try:
        return any(text in Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
    except OSError:
        return False


def test_up_on_a_port_that_is_taken_says_so_and_starts_nothing(up, empty):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = up(empty, "--port", str(port))
        status = running.popen.wait(LIMIT)

    assert (status, running.log) == (1, f"registry: cannot listen on 127.0.0.1:{port}: Address already in use\n")
    assert {path.name for path in empty.iterdir()} == {"out", "log"}


def test_up_for_others_without_the_name_that_they_call_it_by_says_so_and_starts_nothing(empty):
    nowhere = f"127.0.0.1:{free_port()}"
    environ = clean_environment(
        REGISTRY_DATA=str(empty), DATABASE_URL=f"postgres://a@{nowhere}/b", REDIS_URL=f"redis://{nowhere}"
    )

    done = subprocess.run(
        [sys.executable, "manage.py", "up", "--host", "0.0.0.0", "--port", "0"],
        cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip

    assert done.returncode == 1
    assert "set ALLOWED_HOSTS to the name that they call it by" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "", "pay.example.com"])
def test_only_where_strangers_are_expected_they_are_let_in(settings, host):
    settings.PRODUCTION = settings.DEBUG = False
    with pytest.raises(CommandError):
        refuse_strangers(host)
    settings.PRODUCTION = True
    refuse_strangers(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_is_no_stranger(settings, host):
    settings.PRODUCTION = settings.DEBUG = False

    refuse_strangers(host)


@pytest.mark.parametrize(
    ("production", "proxies", "warned"), [(True, (), True), (True, ("x",), False), (False, (), False)]
)
def test_a_production_service_whose_proxy_is_not_named_says_so(settings, caplog, production, proxies, warned):
    settings.PRODUCTION, settings.TRUSTED_PROXIES = production, proxies

    warn_of_unknown_proxies()

    assert ("TRUSTED_PROXIES names no proxy" in caplog.text) == warned


def test_up_serves_survives_the_death_of_everything_and_leaves_nothing(up, data):
    running = up(data, "--port", "0", "--workers", "1")
    url = running.url()
    assert get(f"{url}/health/ready") == 200

    for server in embedded.servers(data):
        os.kill(server.pid(), signal.SIGKILL)
        running.says(f"{server.name} ended, starting it again")
    servers = {server.pid() for server in embedded.servers(data)}
    for pid in set(children(running.popen.pid)) - servers:
        os.kill(pid, signal.SIGKILL)
    for name in ("web", "worker-1", "housekeeping", "cron"):
        running.says(f"{name} ended (signal 9)")

    running.until(lambda: ready_again(url))
    with psycopg.connect(embedded.urls(data).database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    status, seconds = running.exit()
    assert status == 0 and seconds < EXIT_LIMIT
    assert processes_naming(data) == []


def ready_again(url: str) -> bool:
    try:
        return get(f"{url}/health/ready") == 200
    except OSError:
        return False


def test_up_after_kill_9_finds_the_servers_it_left(up, data):
    first = up(data)
    first.url()
    left = [server.pid() for server in embedded.servers(data)]
    first.popen.kill()
    first.popen.wait()

    second = up(data)
    second.url()

    assert [server.pid() for server in embedded.servers(data)] == left
    assert second.exit()[0] == 0
    assert processes_naming(data) == []


MOMENTS = {
    "initdb runs": lambda data: any(data.glob("postgres.new-*")),
    "the database answers": lambda data: embedded.Postgres(data).pid() and embedded.Postgres(data).answers(),
    "Valkey lives": lambda data: embedded.Valkey(data).pid(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_told_to_stop_while_it_starts_leaves_nothing(up, empty, moment):
    running = up(empty)
    running.until(lambda: MOMENTS[moment](empty))

    status, seconds = running.exit()

    assert status == 0 and seconds < EXIT_LIMIT
    assert processes_naming(empty) == []


def test_up_waits_for_a_database_of_the_users_own_and_can_be_stopped_meanwhile(empty):
    nowhere = f"127.0.0.1:{free_port()}"
    environ = clean_environment(
        REGISTRY_DATA=str(empty), DATABASE_URL=f"postgres://a@{nowhere}/b", REDIS_URL=f"redis://{nowhere}"
    )
    running = Running([sys.executable, "manage.py", "up", "--port", "0"], empty, environ)
    running.says("the database cannot be reached, trying again")

    status, seconds = running.exit()

    assert status == 0 and seconds < EXIT_LIMIT


def test_up_with_the_demo_says_where_to_go_and_payments_move(demo: Running):
    """The first start of all: in an empty folder."""
    panel = demo.panel()
    url = demo.url()

    assert (panel["Page"], panel["Admin"], panel["Login"]) == (url, f"{url}/admin/", "operator")
    assert "Demo shop" in read(url)
    assert "[stripe] INFO Stripe simulator at " in demo.log and "Pay by card" in read(url)
    demo.until(lambda: json.loads(read(f"{url}/payments-summary", panel["API key"]))["default"]["totalRequests"] > 0)
