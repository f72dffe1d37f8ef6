"""Settings from the environment."""

from pathlib import Path

import pytest

from app.settings import Settings


def test_relative_data_directory_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIPWAY_DATA_DIR", "some where/data")
    assert Settings().data_dir == tmp_path / "some where/data"


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SLIPWAY_DATA_DIR", "~/slipway")
    assert Settings().data_dir == tmp_path / "slipway"
