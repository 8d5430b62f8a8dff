"""`up` and the supervisor under it: real processes, real signals. Stand-in parts show what the supervisor does with
any part; the last tests start the service itself. What it does while its parts are killed: tests/chaos."""

import json
import os
import shutil
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from registry.management.commands.up import refuse_public_host, warn_of_unknown_proxies
from registry.servers import embedded, supervisor
from registry.servers.processes import free_port
from tests.bed import template
from tests.bed.running import (
    EXIT_LIMIT,
    LIMIT,
    Running,
    clean_environment,
    gone_within_limit,
    is_alive,
    processes_naming,
)

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


def supervisor_in(folder: Path, *names: str, workers: int = 0) -> Running:
    """The supervisor with the stand-ins named; servers are the user's own, so none are started."""
    environ = clean_environment(DATABASE_URL="postgres://a@127.0.0.1:1/b", REDIS_URL="redis://127.0.0.1:1/0")
    parts = {name: SAY + STAND_INS[name] for name in ("web", *names)}
    facts = {"data": str(folder), "parts": parts, "idle": SAY + STAND_INS["idle"], "workers": workers}
    return Running([sys.executable, "-c", SUPERVISE, json.dumps(facts)], folder, environ)


@pytest.fixture
def supervise(tmp_path):
    """Run a supervisor of the test's own."""
    started: list[Running] = []

    def start(*names: str, workers: int = 0) -> Running:
        started.append(supervisor_in(tmp_path, *names, workers=workers))
        return started[-1]

    yield start
    for running in started:
        running.close()


@pytest.fixture(scope="module")
def supervised(tmp_path_factory):
    """One supervisor for all tests that do not end it."""
    running = supervisor_in(tmp_path_factory.mktemp("supervised"), "idle", "talker", "dying")
    yield running
    running.close()


def test_ready_is_printed_once_on_stdout_when_the_web_process_responds(supervised):
    assert get(supervised.url()) == 200
    assert supervised.out.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_supervisor_exits_with_status_0_and_leaves_no_process(supervise, number):
    running = supervise("idle")
    running.url()
    pids = [running.number("web"), running.number("idle")]

    status, _ = running.exit(number)

    assert status == 0
    assert not any(map(is_alive, pids))


def test_lines_of_a_part_carry_its_name_and_stay_whole(supervised):
    assert supervised.says("[talker] half and half\n")
    assert supervised.says("[talker] bad\n")


def test_a_part_that_was_killed_is_started_again_and_the_log_says_so(supervised):
    os.kill(supervised.number("idle"), signal.SIGKILL)

    assert supervised.says("idle ended (signal 9), starting it again in 0.2 s")
    assert is_alive(supervised.number("idle", time=2))


def test_connections_wait_while_the_web_is_restarted(supervised):
    url = supervised.url()
    os.kill(supervised.number("web"), signal.SIGKILL)
    supervised.says("web ended")

    assert [get(url) for _ in range(3)] == [200, 200, 200]


def test_a_part_that_dies_at_once_is_restarted_with_growing_pauses(supervised):
    for pause in ("0.2", "0.4", "0.8"):
        assert supervised.says(f"dying ended (status 3), starting it again in {pause} s")


def test_a_part_that_does_not_listen_is_killed(supervise):
    running = supervise("stubborn")
    running.says("[stubborn] deaf")
    pid = running.number("stubborn")

    status, seconds = running.exit()

    assert (status, is_alive(pid)) == (0, False)
    assert seconds < EXIT_LIMIT


def test_descendants_of_a_killed_part_in_a_session_of_their_own_are_killed(supervise):
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


def test_the_number_of_workers_follows_the_queue(supervise, queue_wants):
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


def test_a_queue_that_cannot_be_read_changes_nothing(supervise, queue_wants, tmp_path):
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
    template.stop_servers(folder)
    shutil.rmtree(folder)


@pytest.fixture
def up(empty, monkeypatch):
    """Begin to start the service in an empty folder."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    started: list[Running] = []

    def start(*command: str) -> Running:
        environ = clean_environment(REGISTRY_DATA=str(empty))
        started.append(Running([sys.executable, *(command or ("manage.py", "up", "--port", "0"))], empty, environ))
        return started[-1]

    yield start
    for running in started:
        running.close()


IMPATIENT = "import manage; from registry.servers import listening; listening.PORT_LIMIT = 0.1; manage.main()"


def test_up_on_a_taken_port_is_explained_and_starts_nothing(up, empty):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = up("-c", IMPATIENT, "up", "--port", str(port))
        status = running.popen.wait(LIMIT)

    assert (status, running.log) == (1, f"registry: cannot listen on 127.0.0.1:{port}: Address already in use\n")
    assert {path.name for path in empty.iterdir()} == {"out", "log"}


def test_up_says_how_to_use_it_also_while_its_port_is_taken(up):
    with socket.create_server(("127.0.0.1", 0)) as other:
        running = up("-c", IMPATIENT, "up", "--help", "--port", str(other.getsockname()[1]))
        status = running.popen.wait(LIMIT)

    assert (status, "--port" in running.out) == (0, True)


def test_up_on_a_public_address_without_allowed_hosts_is_refused_and_starts_nothing(settings, monkeypatch):
    settings.PRODUCTION = settings.DEBUG = False
    monkeypatch.setattr(supervisor, "run", lambda *_: pytest.fail("it runs"))

    with pytest.raises(CommandError, match="set ALLOWED_HOSTS to the host name that clients use"):
        call_command("up", "--host", "0.0.0.0", "--port", "0")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "", "pay.example.com"])
def test_a_public_host_is_refused_outside_production(settings, host):
    settings.PRODUCTION = settings.DEBUG = False
    with pytest.raises(CommandError):
        refuse_public_host(host)
    settings.PRODUCTION = True
    refuse_public_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_a_loopback_host_is_allowed_outside_production(settings, host):
    settings.PRODUCTION = settings.DEBUG = False

    refuse_public_host(host)


@pytest.mark.parametrize(
    ("production", "proxies", "warned"), [(True, (), True), (True, ("x",), False), (False, (), False)]
)
def test_production_without_trusted_proxies_is_warned_about(settings, caplog, production, proxies, warned):
    settings.PRODUCTION, settings.TRUSTED_PROXIES = production, proxies

    warn_of_unknown_proxies()

    assert ("TRUSTED_PROXIES is empty" in caplog.text) == warned


MOMENTS = {
    "initdb runs": lambda data: any(data.glob("postgres.new-*")),
    "the database answers": lambda data: embedded.Postgres(data).pid() and embedded.Postgres(data).answers(),
    "Valkey lives": lambda data: embedded.Valkey(data).pid(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_stopped_while_it_starts_leaves_nothing(up, empty, moment):
    running = up()
    running.until(lambda: MOMENTS[moment](empty))

    status, seconds = running.exit()

    assert status == 0 and seconds < EXIT_LIMIT
    assert processes_naming(empty) == []


def test_up_waits_for_a_database_of_the_user_and_can_be_stopped_meanwhile(empty):
    nowhere = f"127.0.0.1:{free_port()}"
    environ = clean_environment(
        REGISTRY_DATA=str(empty), DATABASE_URL=f"postgres://a@{nowhere}/b", REDIS_URL=f"redis://{nowhere}"
    )
    running = Running([sys.executable, "manage.py", "up", "--port", "0"], empty, environ)
    running.says("the database cannot be reached, trying again")

    status, seconds = running.exit()

    assert status == 0 and seconds < EXIT_LIMIT


def test_up_with_the_demo_prints_the_address_and_payments_settle(demo: Running):
    """The first start of all: in an empty folder."""
    panel = demo.panel()
    url = demo.url()

    assert (panel["Page"], panel["Admin"], panel["Login"]) == (url, f"{url}/admin/", "operator")
    assert "Demo shop" in read(url)
    assert "[stripe] INFO Stripe simulator at " in demo.log and "Pay by card" in read(url)
    demo.until(lambda: json.loads(read(f"{url}/payments-summary", panel["API key"]))["default"]["totalRequests"] > 0)
    assert "payment succeeded" not in demo.log  # lines of the demo's payments would hide the panel within seconds
