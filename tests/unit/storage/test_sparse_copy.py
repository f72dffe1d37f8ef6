"""Copies that keep holes."""

import os
from pathlib import Path

import pytest

from app.storage import sparse_copy
from app.storage.sparse_copy import copy_sparse


def copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        copy_sparse(reading.fileno(), writing.fileno())


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.write(b"head")
        file.seek(50 << 20)
        file.write(os.urandom(300_000))
        file.truncate(100 << 20)
    return path


@pytest.mark.parametrize("can_clone", [True, False])
def test_copy_is_equal_and_sparse(
    sparse_file: Path, tmp_path: Path, can_clone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_clone:
        monkeypatch.setattr(sparse_copy, "FICLONE", 0)  # an unknown ioctl: ENOTTY
    copy(sparse_file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == sparse_file.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= sparse_file.stat().st_blocks + 16


@pytest.mark.parametrize("size", [0, 1, 10 << 20])
def test_copy_of_holes_alone(tmp_path: Path, size: int) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(size)
    copy(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(size)


def test_copy_to_a_full_device_fails(sparse_file: Path) -> None:
    with sparse_file.open("rb") as source, Path("/dev/full").open("wb") as target, \
            pytest.raises(OSError, match=r"."):  # fmt: skip
        copy_sparse(source.fileno(), target.fileno())
