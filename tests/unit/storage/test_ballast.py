"""Space kept back for cleaning up a full disk."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from app.core.errors import ResourceExhausted
from app.storage.ballast import SIZE_BYTES, Ballast

Usage = namedtuple("Usage", "total used free")


async def test_it_really_takes_the_space_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "ballast"
    ballast = Ballast(path)
    await ballast.lay_in()
    assert path.stat().st_blocks * 512 >= SIZE_BYTES
    assert await ballast.give_up()
    assert not path.exists()
    assert not await ballast.give_up()


async def test_it_is_not_laid_in_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 2 * SIZE_BYTES))
    path = tmp_path / "ballast"
    await Ballast(path).lay_in()
    assert not path.exists()
    assert not path.with_suffix(".partial").exists()


async def test_work_on_a_full_disk_is_done_with_the_ballast_given_up(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast")
    await ballast.lay_in()

    async def work() -> str:
        if (tmp_path / "ballast").exists():
            raise ResourceExhausted("disk full")
        return "done"

    assert await ballast.try_twice(work) == "done"


async def test_without_ballast_the_error_passes_through(tmp_path: Path) -> None:
    async def work() -> None:
        raise ResourceExhausted("disk full")

    with pytest.raises(ResourceExhausted, match="disk full"):
        await Ballast(tmp_path / "ballast").try_twice(work)
