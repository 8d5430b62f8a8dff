"""docs/operators/backup.md: a backup of a database with payments is restored on another server by the page's commands, and its books agree."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from payments.refunds import refunds
from registry.data import database
from registry.servers import embedded
from registry.servers.binaries import find_postgres
from registry.servers.data_folder import DataFolder
from registry.servers.processes import free_port, holds_within
from registry.tenants import audit
from tests.bed.running import clean_environment
from tests.bed.template import empty_folder
from tests.factories import in_thread, make_processor
from tests.payments.refunding import booked, pay_back
from tests.test_documents import blocks

PROJECT = Path(__file__).resolve().parents[1]
PAGE = "docs/operators/backup.md"
PROGRAMS = find_postgres().executable.parent
START_LIMIT = 30.0  # seconds for a restored server to answer


def block(part: str) -> str:
    """The only block of the page with this part."""
    [found] = [text for file, text in blocks() if file == PAGE and part in text]
    return found


def url_of(name: str = "") -> str:
    """The test database of this process, or another one of its server."""
    where = connection.settings_dict
    return f"postgres://{where['USER']}:{where['PASSWORD']}@{where['HOST']}:{where['PORT']}/{name or where['NAME']}"


async def run(script: str, folder: Path, **variables: str) -> str:
    """Run commands of the page in `folder`; what they print."""
    script = script.replace(".venv/bin/python manage.py", f"{PROJECT}/.venv/bin/python {PROJECT}/manage.py")
    environ = clean_environment(
        PATH=f"{PROGRAMS}:{os.environ['PATH']}",
        SECRET_KEY=settings.SECRET_KEY,
        REDIS_URL=os.environ["REDIS_URL"],
        **variables,
    )
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
async def history(tenant) -> None:
    """Payments with a refund, and an audit trail."""
    await in_thread(make_processor, tenant, fee="0.05")
    first, *_ = await booked(tenant, 20, amount=1990)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=first, amount=300)
    await pay_back(first, "returned")
    async with database.own_connection():
        await audit.record(actor="owner", action="key.create", target="key", tenant_id=tenant.pk)


@contextmanager
def another_server() -> Iterator[embedded.Postgres]:
    """An empty PostgreSQL in a data folder of its own."""
    folder = empty_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        server = embedded.Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            patch.setenv("REDIS_URL", os.environ["REDIS_URL"])
            embedded.stop(folder)
            shutil.rmtree(folder)


@pytest.mark.usefixtures("history")
async def test_a_dump_is_restored_on_another_server_and_its_books_agree_until_a_row_is_changed(tmp_path: Path):
    await run(block("pg_dump"), tmp_path, DATABASE_URL=url_of())
    _, check = block("pg_restore").splitlines()

    with another_server() as server:
        said = await run(block("pg_restore"), tmp_path, DATABASE_URL=url_of(), RESTORED_URL=server.url)

        assert "No difference, all tenants" in said
        assert "payments 20" in said
        with psycopg.connect(server.url) as restored, psycopg.connect(url_of()) as original:
            sql = "SELECT count(*), sum(amount), sum(refunded) FROM payments_payment"
            assert restored.execute(sql).fetchone() == original.execute(sql).fetchone() == (20, 20 * 1990, 300)
            # The check after a restore can fail.
            restored.execute("UPDATE payments_payment SET amount = amount + 1 WHERE refunded > 0")
        with pytest.raises(AssertionError, match=r"amount 19\.91 BRL"):
            await run(check, tmp_path, RESTORED_URL=server.url)


@pytest.mark.usefixtures("history")
async def test_a_base_backup_starts_and_its_books_agree():
    folder = empty_folder()
    account = DataFolder(folder)
    program = account.usable(find_postgres())
    account.give(folder)
    try:
        await run(block("pg_basebackup"), folder, DATABASE_URL=url_of("postgres"))
        base = folder / "registry.base"
        for path in (base, *base.rglob("*")):
            account.give(path)
        with serving(account, program, base) as port:
            url = url_of().replace(f":{connection.settings_dict['PORT']}/", f":{port}/")
            said = await run(block("pg_restore").splitlines()[1], folder, RESTORED_URL=url)
    finally:
        shutil.rmtree(folder)

    assert "No difference, all tenants" in said


@contextmanager
def serving(account: DataFolder, program: Path, base: Path) -> Iterator[int]:
    """PostgreSQL on this folder; its port."""
    port = free_port()
    command = [str(program), "-D", str(base), "-p", str(port)]
    with (base.parent / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=base, stdout=log, stderr=log, **account.as_process)
    try:
        url = url_of("postgres").replace(f":{connection.settings_dict['PORT']}/", f":{port}/")

        def answers() -> bool:
            assert process.poll() is None, (base.parent / "log").read_text()
            try:
                psycopg.connect(url, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        assert holds_within(START_LIMIT, answers)
        yield port
    finally:
        process.terminate()
        process.wait()
