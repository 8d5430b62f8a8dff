"""The PostgreSQL that all tests of a run share: fast, and a killed process loses nothing."""

import pytest

from registry.data import database
from registry.servers import embedded
from tests.bed.template import PROJECT
from tests.conftest import eventually


async def setting(name: str) -> str:
    return (await database.fetch("SELECT current_setting(%s)", [name]))[0][0]


@pytest.mark.skipif(
    embedded.Postgres(PROJECT / ".data" / "test").taken_over, reason="a server of the user's own keeps its settings"
)
async def test_only_what_protects_against_a_power_cut_is_switched_off():
    async def is_off() -> bool:
        return await setting("fsync") == "off"

    await eventually(is_off)
    assert await setting("full_page_writes") == "off"
    assert await setting("synchronous_commit") == "on"
