"""Scratch disks: made by copy, removed, never left half-made."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PrerequisiteMissing,
    ResourceExhausted,
    Unavailable,
)
from app.core.units import GIB, MIB
from app.storage.scratch import ScratchDisks

pytestmark = pytest.mark.skipif(
    shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None,
    reason="mkfs.ext4 is not installed",
)

ID = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def disks(tmp_path: Path) -> ScratchDisks:
    return ScratchDisks(tmp_path / "scratch")


def fsck(path: Path) -> str:
    done = subprocess.run(
        ["/usr/sbin/e2fsck", "-fn", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_as_a_guest(path: Path) -> None:
    command = ["/usr/sbin/debugfs", "-w", "-R", "write /etc/hostname hello", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def fill(disks: ScratchDisks, size_bytes: int) -> None:
    for number in range(5):
        await disks.create(f"{number}{size_bytes}", size_bytes)


async def test_scratch_is_a_clean_sparse_ext4(disks: ScratchDisks) -> None:
    path = await disks.create(ID, 20 * GIB)
    assert path == disks.path(ID)
    status = path.stat()
    assert status.st_size == 20 * GIB
    assert status.st_mode & 0o777 == 0o600
    assert await disks.used_bytes(ID) < MIB
    await asyncio.to_thread(fsck, path)


async def test_scratch_size_is_rounded_up(disks: ScratchDisks) -> None:
    path = await disks.create(ID, 64 * MIB + 1)
    assert path.stat().st_size == 65 * MIB


async def test_scratch_disks_are_made_from_one_template(disks: ScratchDisks) -> None:
    first = await disks.create(ID, 64 * MIB)
    second = await disks.create(OTHER, 64 * MIB)
    assert first.read_bytes() == second.read_bytes()
    assert len(list(first.parent.glob(".template*"))) == 1


async def test_scratch_template_is_the_same_everywhere(tmp_path: Path) -> None:
    one = await ScratchDisks(tmp_path / "one").create(ID, 64 * MIB)
    two = await ScratchDisks(tmp_path / "two").create(ID, 64 * MIB)
    assert one.read_bytes() == two.read_bytes()


async def test_scratch_writing_one_leaves_the_other(disks: ScratchDisks) -> None:
    first = await disks.create(ID, 64 * MIB)
    second = await disks.create(OTHER, 64 * MIB)
    before = second.read_bytes()
    await asyncio.to_thread(write_as_a_guest, first)
    assert first.read_bytes() != before
    assert second.read_bytes() == before


async def test_scratch_second_disk_conflicts(disks: ScratchDisks) -> None:
    path = await disks.create(ID, 64 * MIB)
    path.write_bytes(b"mine")
    with pytest.raises(Conflict, match="scratch disk already"):
        await disks.create(ID, 64 * MIB)
    assert path.read_bytes() == b"mine"
    assert not list(path.parent.glob("*.tmp"))


async def test_scratch_is_made_once_and_kept(disks: ScratchDisks) -> None:
    path = await disks.ensure(ID, 64 * MIB)
    write_as_a_guest(path)
    written = path.read_bytes()
    assert await disks.ensure(ID, 64 * MIB) == path
    assert path.read_bytes() == written
    with pytest.raises(InvalidArgument, match="can't have 5 bytes"):
        await disks.ensure(OTHER, 5)


async def test_scratch_concurrent_creates_make_one(disks: ScratchDisks) -> None:
    results = await asyncio.gather(
        *(disks.create(ID, 64 * MIB) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Path) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 4


async def test_scratch_remove_is_idempotent(disks: ScratchDisks) -> None:
    path = await disks.create(ID, 64 * MIB)
    assert await disks.remove(ID) > 0
    assert not path.exists()
    assert await disks.remove(ID) == 0


async def test_scratch_used_bytes_of_nothing(disks: ScratchDisks) -> None:
    with pytest.raises(NotFound):
        await disks.used_bytes(ID)


async def test_scratch_orphans_are_removed(disks: ScratchDisks) -> None:
    kept = await disks.create(ID, 64 * MIB)
    await disks.create(OTHER, 64 * MIB)
    half_made = kept.with_name(f".{kept.name}.1-2.tmp")
    half_made.write_bytes(b"")
    assert await disks.remove_orphans([ID]) == [OTHER]
    assert {path.name for path in kept.parent.iterdir()} == {
        kept.name, ".template-1-67108864",
    }  # fmt: skip


async def test_scratch_orphans_of_no_directory(disks: ScratchDisks) -> None:
    assert await disks.remove_orphans([]) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "x" * 65, ".x", "a\0"])
async def test_scratch_refuses_names_that_are_no_ids(disks: ScratchDisks, name: str) -> None:
    with pytest.raises(InvalidArgument):
        disks.path(name)
    with pytest.raises(InvalidArgument):
        await disks.create(name, 64 * MIB)


@pytest.mark.parametrize("size_bytes", [-1, 0, 64 * MIB - 1, 1 << 60])
async def test_scratch_refuses_impossible_sizes(disks: ScratchDisks, size_bytes: int) -> None:
    with pytest.raises(InvalidArgument, match="scratch disk can't have"):
        await disks.create(ID, size_bytes)


async def test_scratch_without_mkfs(disks: ScratchDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.scratch.SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PrerequisiteMissing, match="mkfs") as caught:
        await disks.create(ID, 64 * MIB)
    assert "e2fsprogs" in caught.value.advice
    assert list(disks.path(ID).parent.iterdir()) == []


async def test_scratch_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="making the scratch disk"):
        await ScratchDisks(tmp_path / "file").create(ID, 64 * MIB)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 400 KiB: one template fits, no copy."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", path], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a small filesystem needs root")
    yield path
    subprocess.run(["umount", path], check=True)


async def test_scratch_full_disk_leaves_nothing(small_disk: Path) -> None:
    disks = ScratchDisks(small_disk)
    for size_bytes in (20 * GIB, 64 * MIB, 200 * GIB):
        with pytest.raises(ResourceExhausted, match="no space left"):
            await fill(disks, size_bytes)
        assert not [name for name in names_in(small_disk) if name.endswith(".tmp")]
        await disks.remove_orphans([])
