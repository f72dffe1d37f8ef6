from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.unit.logs.lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path / "logs")
    await lab.open()
    yield lab
    await lab.store.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes chunks of few lines, so that short tests reach them."""

    def shrink(lines: int) -> None:
        monkeypatch.setattr("app.logs.dayfile.CHUNK_LINES", lines)

    return shrink
