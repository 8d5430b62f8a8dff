"""The primary among several hosts: found whichever comes first, though another one hangs; one that was replaced is not used."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection
from psycopg import AsyncConnection

from registry.data import database, db_breaker, hosts
from registry.data.addresses import django_database, postgres, primary
from registry.servers import embedded
from registry.servers.binaries import find_postgres
from tests.bed.standby import Pair, thaw
from tests.bed.template import empty_folder, fill_postgres
from tests.servers import other_pool

QUICK = 1.0  # seconds for a connection beside a host that hangs; libpq would wait for its time limit first


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = empty_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        fill_postgres(folder)
        first = embedded.Postgres(folder)
        first.start()
        made = Pair(first, synchronous=False)
        yield made
        made.close()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    hosts.forget()
    yield
    hosts.forget()


def parameters_of(pair: Pair, **changed: Any) -> dict[str, Any]:
    """As the service connects, in either order of hosts."""
    found = primary("DATABASE_URL", postgres("DATABASE_URL", pair.url))
    return {**found, "connect_timeout": 2, **changed}


def in_the_other_order(parameters: dict[str, Any]) -> dict[str, Any]:
    first, second = parameters["port"].split(",")
    return {**parameters, "port": f"{second},{first}"}


async def port_of(parameters: dict[str, Any]) -> int:
    conn = await hosts.PrimaryConnection.connect(**{**parameters, "autocommit": True})
    try:
        return conn.info.port
    finally:
        await conn.close()


def blocking_port_of(parameters: dict[str, Any]) -> int:
    with closing(hosts.first_primary(parameters, lambda host: psycopg.connect(**host))) as conn:
        return conn.info.port


async def test_the_primary_is_found_whichever_host_comes_first(pair: Pair):
    found = []
    for parameters in (parameters_of(pair), in_the_other_order(parameters_of(pair))):
        found += [await port_of(parameters), await asyncio.to_thread(blocking_port_of, parameters)]

    assert found == [pair.primary.port] * 4


async def test_a_host_that_hangs_delays_nobody_who_knows_the_primary_or_learns_of_it(pair: Pair):
    parameters = parameters_of(pair)
    asked_first = {**parameters, "port": f"{pair.standby.port},{pair.primary.port}"}
    pids = pair.standby.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        ports = [
            await port_of(asked_first),
            await port_of(asked_first),
            await asyncio.to_thread(blocking_port_of, asked_first),
        ]
        took = time.monotonic() - began
    finally:
        thaw(pids)

    assert ports == [pair.primary.port] * 3
    assert took < QUICK


async def test_without_a_primary_the_reason_says_so(pair: Pair):
    only_standbys = parameters_of(pair, host="127.0.0.1,127.0.0.1", port=f"{pair.standby.port},{pair.standby.port}")
    async with other_pool(**only_standbys):
        result = await db_breaker._probe_once()

    assert result.away == db_breaker.NO_PRIMARY


async def test_a_primary_that_was_replaced_is_not_used_though_it_takes_writes(pair: Pair):
    parameters = parameters_of(pair)
    async with other_pool(**parameters):
        async with database.connection() as conn:
            before = conn.info.port
        old = pair.primary
        await asyncio.to_thread(pair.promote)  # the old one knows nothing of it, and takes writes
        assert await port_of({**parameters, "port": f"{pair.primary.port}", "host": "127.0.0.1"}) == pair.primary.port
        hosts.cluster_of(parameters | {"dbname": database.connection_parameters()["dbname"]}).primary = None
        found = await port_of(database.connection_parameters())
        async with database.connection() as conn:  # the pool has idle ones of the old server
            after = conn.info.port
        with pytest.raises(hosts.Deposed):
            await hosts.PrimaryConnection._to_host(
                {**database.connection_parameters(), "port": str(old.port), "host": "127.0.0.1"},
                hosts.cluster_of(database.connection_parameters()),
            )
        async with await AsyncConnection.connect(old.url, autocommit=True) as writable:
            row = await (await writable.execute("SHOW transaction_read_only")).fetchone()

    assert (before, found, after) == (old.port, pair.primary.port, pair.primary.port)
    assert row == ("off",)


# -- Addresses ------------------------------------------------------------------------------------------------------------


def test_an_address_has_several_hosts_ipv6_and_encoded_characters():
    found = django_database(
        primary(
            "DATABASE_URL",
            postgres(
                "DATABASE_URL", "postgres://re%40g:p%2Fw%25@[::1]:1,db-2.example,10.0.0.3:3/n%20ame?sslmode=require"
            ),
        )
    )

    assert {name: value for name, value in found.items() if name != "OPTIONS"} == {
        "NAME": "n ame",
        "USER": "re@g",
        "PASSWORD": "p/w%",
        "HOST": "::1,db-2.example,10.0.0.3",
        "PORT": "1,,3",
    }
    assert found["OPTIONS"] == {"sslmode": "require", "target_session_attrs": "read-write"}


def test_an_address_of_one_host_asks_for_no_kind_of_server():
    found = django_database(primary("DATABASE_URL", postgres("DATABASE_URL", "postgres://u:p@h/d")))

    assert (found["HOST"], found["PORT"], found["OPTIONS"]) == ("h", "", {})


def test_the_blocking_connection_of_django_finds_the_primary_too(pair: Pair):
    parameters = {**django_connection.get_connection_params(), **in_the_other_order(parameters_of(pair))}
    conn = django_connection.get_new_connection(parameters)
    try:
        assert conn.info.port == pair.primary.port
    finally:
        conn.close()


def test_a_backup_takes_the_same_address_and_finds_the_primary(pair: Pair, tmp_path: Path):
    first, second = (server.port for server in pair.servers)
    address = (
        pair.url.replace(f":{first},", ":FIRST,").replace(f":{second}/", f":{first}/").replace("FIRST", str(second))
    )
    folder = find_postgres().executable.parent
    environ = {"PATH": f"{folder}:{os.environ['PATH']}"}
    for url in (pair.url, address):
        command = ["pg_dump", "--schema-only", "--table", "registry_tenant", "--file", str(tmp_path / "dump"), url]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)

        assert done.returncode == 0, done.stderr
        assert "CREATE TABLE public.registry_tenant" in (tmp_path / "dump").read_text()
