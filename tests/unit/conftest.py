"""Fixtures that every unit test may use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.db.database import Database
from app.db.migrate import upgrade_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "slipway.db"
    upgrade_database(path)
    database = Database(path)
    await database.open()
    yield database
    await database.close()
