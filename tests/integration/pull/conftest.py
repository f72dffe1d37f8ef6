"""Fixtures: a registry that can be told to misbehave, and a real store to pull into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry, faulty_registry
from tests.integration.image_lab import open_store


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty_registry() as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    async with open_store(tmp_path / "images") as store:
        yield store
