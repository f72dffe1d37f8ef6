"""Fixtures of the integration tests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.oci.starter import import_starter
from app.oci.store import ImageStore
from app.services.bundle import Services
from tests.integration.docker_lab import DockerClient, docker_served
from tests.integration.engine_lab import EngineLab


@pytest.fixture(scope="session")
def prepared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the starter image, to be copied."""
    data_dir = tmp_path_factory.mktemp("prepared") / "data"

    async def prepare() -> None:
        store = ImageStore(data_dir / "images")
        await store.open()
        await import_starter(store)
        await store.close()

    asyncio.run(prepare())
    return data_dir


@pytest.fixture
async def lab(tmp_path: Path, prepared_data_dir: Path) -> AsyncIterator[EngineLab]:
    """A machine and a data directory without an engine."""
    async with EngineLab(tmp_path, prepared_data_dir) as lab:
        yield lab


@pytest.fixture
async def services(lab: EngineLab) -> AsyncIterator[Services]:
    """A running engine over the fake machine."""
    async with lab.engine() as services:
        yield services


@pytest.fixture
async def docker(services: Services) -> AsyncIterator[DockerClient]:
    """The docker CLI on the engine's unix socket."""
    async with docker_served(services) as client:
        yield client
