"""A web process of `up`, with its real program."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from registry.servers.listening import listen
from registry.servers.plan import APPLICATION
from registry.servers.processes import holds_within
from tests.bed.running import LIMIT, PROJECT, clean_environment

SLOW_APP = """
import time
from pathlib import Path
Path(__file__).with_suffix('.imported').touch()
time.sleep(600)
"""


def test_a_web_process_that_is_stopped_while_it_starts_gives_the_port_free_at_once(tmp_path: Path):
    (tmp_path / "slow_app.py").write_text(SLOW_APP)
    environ = clean_environment(REGISTRY_APPS="slow_app")
    servers = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    environ |= {**servers, "PYTHONPATH": f"{tmp_path}{os.pathsep}{environ['PYTHONPATH']}"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "registry.servers.serve", str(listener.fileno()), APPLICATION]
        web = subprocess.Popen(command, cwd=PROJECT, env=environ, pass_fds=[listener.fileno()])
    try:
        assert holds_within(LIMIT, (tmp_path / "slow_app.imported").exists)

        web.send_signal(signal.SIGTERM)

        listen("127.0.0.1", port).close()  # as the next `up` does
    finally:
        web.kill()
        web.wait()
