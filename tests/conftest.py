"""The bed of the tests: real PostgreSQL and Valkey, the service over real HTTP, real drains, processors that get into trouble.

Tests commit. What isolates them is the tenant, as in the product; rows are removed after each test that touched any.
"""

import asyncio
import gc
import inspect
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from itertools import chain
from typing import Any, Self
from unittest.mock import patch
from uuid import uuid4

import aiohttp
import pytest
import uvicorn
from django.apps import apps
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from hypothesis import HealthCheck
from hypothesis import settings as settings_of_hypothesis
from xdist.scheduler import LoadFileScheduling

from payments.settle.work import PaymentWork
from queueing.work.drain import Drain
from registry.data import database, db_breaker, refusals
from registry.data.loop import end_loop
from registry.edge import request_log
from registry.models import Tenant
from registry.servers import serve
from tests import secrecy
from tests.bed import HttpProcessor
from tests.bed.running import Running, clean_environment
from tests.bed.template import empty_folder, end_pooled_sessions, make_database, stop_servers
from tests.depth import deep
from tests.factories import (
    drop_dead_connection,
    end_threads,
    in_thread,
    make_api_key,
    make_processor,
    make_tenant,
)
from tests.waiting import eventually

# How long the generation of an example takes says something of a busy machine only.
settings_of_hypothesis.register_profile(
    "depth", max_examples=deep(30, 1000), suppress_health_check=[HealthCheck.too_slow]
)
settings_of_hypothesis.load_profile("depth")

GIVEN_BACK = 5.0  # seconds until what a test still does in the background has given its connections back
LABELS = ("registry", "queueing", "payments", "auth", "admin", "sessions")  # apps whose rows tests make
BY_MIGRATIONS = {"auth_permission", "auth_group", "auth_group_permissions"}  # rows that stay
MANY = 1000  # rows removed from one table; unswept, what they leave on its pages slows every test after

# Files that share a service: one process runs them. Two processes share the rest out by file, and what takes longest
# begins first, so that both end together.
TOGETHER = (("chaos/",), ("registry/test_up", "browser/test_demo"))
FIRST = (
    "chaos/test_chaos",
    "chaos/test_queue",
    "chaos/test_outage",
    "chaos/test_deliveries",
    "chaos/test_client",
    "chaos/test_jobs",
    "chaos/",
    "histories/test_run",
    "hosts/",
    "registry/test_up",
    "browser/test_demo",
    "browser/",
    "registry/test_database",
    "queueing/test_redis_trouble",
    "registry/test_live",
    "payments/test_billing",
)
STOPS = "chaos/test_stop"  # it ends the service that all chaos tests strike: none of them may come later


class ByService(LoadFileScheduling):
    """`--dist loadfile`, but files that share a service stay together."""

    def _split_scope(self, nodeid: str) -> str:
        group = next((names for names in TOGETHER if any(f"tests/{name}" in nodeid for name in names)), None)
        return group[0] if group else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return ByService(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.obj = _giving_back(item.obj)


def _turn(item: pytest.Item) -> tuple[int, bool]:
    number = next((n for n, name in enumerate(FIRST) if f"tests/{name}" in item.nodeid), len(FIRST))
    return number, f"tests/{STOPS}" in item.nodeid


def _giving_back(test: Callable[..., Any]) -> Callable[..., Any]:
    """What a test's own calls of services took from the pool goes back when it ends: only its own task can do that."""

    @wraps(test)
    async def inner(*args: Any, **kwargs: Any) -> None:
        try:
            await test(*args, **kwargs)
        finally:
            await database.release()

    return inner


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_keepdb: bool,
    django_db_createdb: bool,
    django_db_blocker: Any,
) -> Iterator[None]:
    """The test database, always: pytest-django's own makes it only when a test that was collected bears its mark."""
    keep = django_db_keepdb and not django_db_createdb
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, keepdb=True) if keep else make_database()
    yield
    if not django_db_keepdb:
        with django_db_blocker.unblock():
            connection.close()
            end_pooled_sessions(connection.settings_dict["NAME"])
            teardown_databases(made, verbosity=0)


@pytest.fixture(scope="session", autouse=True)
def _database(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The loop's pool and Django's own connection both see the test database, in every test."""
    settings.SPILL_FOLDER = tmp_path_factory.mktemp("spill")  # what theirs left is not ours to store
    with django_db_blocker.unblock():
        _make_sweep()
        yield
        connection.close()


@pytest.fixture(scope="session", autouse=True)
def _secrets_are_noted() -> Iterator[None]:
    with secrecy.watching():
        yield


@pytest.fixture(scope="session", autouse=True)
def _passwords_cost_little() -> Iterator[None]:
    """The product's hash, with its least memory and time: what it costs guards against guessing, which no test does."""
    with patch.multiple(Argon2PasswordHasher, time_cost=1, memory_cost=8, parallelism=1):
        yield


@pytest.fixture(autouse=True)
def _no_secret_is_logged(_secrets_are_noted: None) -> Iterator[None]:
    """Whatever a test does, no line of the log holds a secret that was made for it."""
    yield
    assert secrecy.logged() == []


@pytest.fixture(autouse=True)
def _rows_are_removed(_database: None) -> Iterator[None]:
    """On this thread's own connection, which costs no hop to another; a test may have cut it."""
    drop_dead_connection()
    yield
    drop_dead_connection()
    _remove_all()


@pytest.fixture(autouse=True)
async def _clean(_rows_are_removed: None) -> AsyncIterator[None]:
    yield
    if requests := request_log.logs.peek():
        requests.waiting.clear()  # they would be written in the midst of the next test
    await db_breaker.breakers.close()  # whether the server could be reached in one test is nothing to the next
    refusals.set_writable(True)  # nor what it refused
    await database.release()
    await _connections_are_back()


async def _connections_are_back() -> None:
    """Fail the test that keeps one, not the tenth one after it, which finds the pool empty."""
    try:
        await eventually(all_connections_are_back, within=GIVEN_BACK)
    except TimeoutError:
        await database.pools.close()  # the next test begins with a pool of its own
        raise AssertionError(
            "this test keeps a database connection: a service that it calls itself belongs inside database.own_connection()"
        ) from None


def all_connections_are_back() -> bool:
    now = database.statistics()
    return now.get("pool_available") == now.get("pool_size") and not now.get("requests_waiting")


def _remove_all() -> None:
    """DELETE where there are rows, not TRUNCATE: with a handful of them it is a hundred times cheaper."""
    assert connection.settings_dict["NAME"].startswith("test_")
    with connection.cursor() as cursor:
        cursor.execute("SELECT unnest(tests.sweep())")
        for (name,) in cursor.fetchall():
            cursor.execute(f'VACUUM "{name}"')


def _make_sweep() -> None:
    """A function, because its plans are kept: planning the search through all tables would take longer than the search."""
    models = chain(*(apps.get_app_config(label).get_models(include_auto_created=True) for label in LABELS))
    tables = sorted({model._meta.db_table for model in models} - BY_MIGRATIONS)
    body = "\n".join(
        f"""IF EXISTS (SELECT FROM public."{name}") THEN
            DELETE FROM public."{name}"; GET DIAGNOSTICS removed = ROW_COUNT;
            IF removed > {MANY} THEN large := large || '{name}'::text; END IF;
        END IF;"""
        for name in tables
    )
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS tests")
        cursor.execute(
            f"""CREATE OR REPLACE FUNCTION tests.sweep() RETURNS text[] LANGUAGE plpgsql
            SET session_replication_role = replica -- no order of foreign keys to find
            AS $$ DECLARE removed bigint; large text[] := '{{}}';
            BEGIN {body} RETURN large; END $$"""
        )


@pytest.fixture(scope="session", autouse=True)
async def _loop_resources() -> AsyncIterator[None]:
    yield
    await end_loop()
    await asyncio.to_thread(end_threads)
    await asyncio.get_running_loop().shutdown_default_executor()
    gc.collect()  # Django's connections of those threads: they are closed when they are forgotten


# -- Tenants and what they have ------------------------------------------------------------------------


@pytest.fixture
def tenant() -> Tenant:
    """A sandbox tenant in BRL, of a name no other test has."""
    return make_tenant(f"shop-{uuid4().hex[:12]}")


@pytest.fixture
def key(tenant: Tenant) -> str:
    """A key of `tenant` that may read and write."""
    return make_api_key(tenant)


async def make_key(tenant: Tenant, *scopes: str, **options: Any) -> str:
    """`make_api_key` for a test on the loop."""
    return await in_thread(make_api_key, tenant, *scopes, **options)


@pytest.fixture
async def default(tenant: Tenant) -> AsyncIterator[HttpProcessor]:
    """The tenant's cheaper processor, over HTTP, well until told otherwise."""
    async with HttpProcessor() as processor:
        await in_thread(make_processor, tenant, "default", kind="http", url=processor.url, fee="0.05")
        yield processor


@pytest.fixture
async def fallback(tenant: Tenant) -> AsyncIterator[HttpProcessor]:
    """The tenant's dearer processor."""
    async with HttpProcessor() as processor:
        await in_thread(make_processor, tenant, "fallback", kind="http", url=processor.url, fee="0.15")
        yield processor


@pytest.fixture
def lean_commands(settings: Any) -> None:
    """A command opens a loop, and in it a pool, for a statement or two: one connection will do, not DB_POOL_MIN."""
    settings.DB_POOL_MIN = 1


# -- The service -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[str]:
    """The address of the service, served as a web process serves it, in this process's loop."""
    from registry.asgi import application

    # By its protocol asyncio knows that Nagle's algorithm may be off; else an answer in two parts takes 40 ms.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    uvicorn_server = uvicorn.Server(serve.configuration(application, timeout_graceful_shutdown=1, lifespan="off"))
    uvicorn_server.install_signal_handlers = lambda: None
    task = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    await eventually(lambda: uvicorn_server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    uvicorn_server.should_exit = True
    await task


class Demo:
    """The whole service with the demo, as `make run` starts it, in an empty folder. It pays all the time: it ends when the
    next test does not ask for it."""

    def __init__(self) -> None:
        self.running: Running | None = None

    def start(self) -> Running:
        if not self.running:
            self.folder = empty_folder("registry-demo-")
            command = [sys.executable, "manage.py", "up", "--port", "0", "--demo"]
            environ = clean_environment(REGISTRY_DATA=str(self.folder / "data"))
            self.running = Running(command, self.folder, environ)
            self.running.panel()
        return self.running

    def end(self) -> None:
        running, self.running = self.running, None
        if not running:
            return
        try:
            running.exit()
        finally:
            running.close()
            stop_servers(self.folder / "data")
            shutil.rmtree(self.folder)


_demo = Demo()


@pytest.fixture
def demo() -> Running:
    return _demo.start()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if "demo" not in getattr(nextitem, "fixturenames", ()):
        _demo.end()


class Api:
    """A program that calls the service with a key (or without)."""

    def __init__(self, address: str, key: str | None = None) -> None:
        self.address, self.key = address, key

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.session = aiohttp.ClientSession(self.address, headers=headers)
        self.get, self.post, self.ws_connect = self.session.get, self.session.post, self.session.ws_connect
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.close()

    async def pay(self, amount: Any = "19.90", **fields: Any) -> dict[str, Any]:
        """Accept a payment; the answer's body."""
        body = {"correlationId": str(uuid4()), "amount": amount, **fields}
        async with self.post("/payments", json=body) as response:
            assert response.status == 202, await response.text()
            return await response.json()

    async def status(self, correlation_id: str) -> dict[str, Any]:
        async with self.get(f"/payments/{correlation_id}/status") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def detail(self, correlation_id: str) -> dict[str, Any]:
        async with self.get(f"/payments/{correlation_id}") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def until(self, correlation_id: str, *statuses: str) -> dict[str, Any]:
        """The payment's status object once it is one of `statuses`."""

        async def reached() -> dict[str, Any] | None:
            found = await self.status(correlation_id)
            return found if found["status"] in statuses else None

        return await eventually(reached)


@pytest.fixture
async def api(server: str, key: str) -> AsyncIterator[Api]:
    async with Api(server, key) as client:
        yield client


@pytest.fixture
async def stranger(server: str) -> AsyncIterator[Api]:
    """A program of another tenant."""
    key = await in_thread(lambda: make_api_key(make_tenant(f"other-{uuid4().hex[:12]}")))
    async with Api(server, key) as client:
        yield client


@asynccontextmanager
async def at_work(**options: Any) -> AsyncIterator[Drain]:
    """A worker's drain in this loop, as an RQ job runs it; stopped gently on leaving."""
    work = PaymentWork()
    drain = Drain(work, **options)
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        yield drain
    finally:
        drain.stop()
        await task
        await work.close()


@pytest.fixture
async def worker() -> AsyncIterator[Drain]:
    async with at_work() as drain:
        yield drain
