"""What the laboratory needs of a machine, and what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from registry.servers.binaries import LEAST_POSTGRES, version_of

# Programs, and Debian's packages that have them. Patroni needs a PostgreSQL with all of its tools; any from 15 on.
PROGRAMS = {
    "ip": "iproute2",
    "setpriv": "util-linux",
    "mount": "mount",
    "etcd": "etcd-server",
    "patroni": "patroni",
    "patronictl": "patroni",
    "haproxy": "haproxy",
}
TOOLS = ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata")


def missing() -> list[str]:
    """The missing rights and packages, each with how to get it; empty where the laboratory can run."""
    if sys.platform != "linux":
        return ["Linux: hosts are network namespaces"]
    absent = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if postgres_folder() is None:
        absent.append("postgresql")
    found = (
        [f"Debian's packages {' '.join(absent)}: apt-get install --no-install-recommends {' '.join(absent)}"]
        if absent
        else []
    )
    if os.geteuid() != 0:
        found.append(
            "root: it makes network namespaces and mounts small disks in memory; everything stays inside of them"
        )
    elif not absent and not _may_make_namespaces():
        found.append(
            "the right to make network namespaces and to mount (CAP_SYS_ADMIN): a container needs --privileged"
        )
    return found


def _may_make_namespaces() -> bool:
    tried = ["unshare", "--net", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


def postgres_folder() -> Path | None:
    """The programs of the newest PostgreSQL of this machine: Debian's, or the one on PATH."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    complete = [one for one in folders if all((one / tool).exists() for tool in TOOLS)]
    found = {one: version_of(one / "postgres") for one in complete}
    good = [one for one, version in found.items() if version >= LEAST_POSTGRES]
    return max(good, key=found.__getitem__, default=None)
