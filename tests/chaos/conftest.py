"""One service for all chaos tests: a test also shows that the service works after what others did to it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.chaos.service import Service, running


@pytest.fixture(scope="package")
async def whole() -> AsyncIterator[Service]:
    async with running() as service:
        yield service


@pytest.fixture(scope="module")
async def service(whole: Service) -> Service:
    """The service, with processors that are well."""
    await asyncio.to_thread(whole.calm)
    return whole


@pytest.fixture
async def session(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        yield session
