"""What VMs of the pool warm up with: the real program in a directory, and the disk around it."""

import asyncio
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from app.guest.warm_up import WARM_UP_COMMAND, pack_warm_up_layer
from app.oci.compression import Compression
from app.oci.conversion import DISK_SECTOR_BYTES, convert_layer, scan_layer
from app.oci.limits import ImportLimits
from app.oci.starter import is_static_elf
from app.oci.streams import CancelToken

SOURCE = Path(__file__).parents[3] / "guest" / "agent"
SUPERBLOCK = struct.Struct("<4s8xI4xHHH")
NO_XATTRS, ALWAYS_FRAGMENTS = 0x200, 0x20

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("gcc", "make", "mksquashfs", "unsquashfs", "sqfstar"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    built = tmp_path_factory.mktemp("warm-up") / "warm-up"
    subprocess.run(["make", "-s", "-C", SOURCE, built, f"OUT={built.parent}"], check=True)
    return built


@pytest.fixture
def root(program: Path, tmp_path: Path) -> Path:
    """The layer unpacked, with files where a guest mounts /proc."""
    disk, root = tmp_path / "disk", tmp_path / "root"
    disk.write_bytes(asyncio.run(pack_warm_up_layer(program, tmp_path, source_date_epoch_s=0)))
    subprocess.run(["unsquashfs", "-q", "-n", "-d", root, disk], check=True, timeout=20)
    (root / "proc/self").mkdir()
    for name in ("self/status", "meminfo"):
        (root / "proc" / name).touch()
    return root


def run(root: Path) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = ["chroot", root, WARM_UP_COMMAND]
    if os.geteuid() != 0:
        command = ["unshare", "--map-root-user", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


def squashfs_shape(disk: bytes) -> tuple[int, ...]:
    """Block size, compression and flags of the superblock (Linux: fs/squashfs/squashfs_fs.h).

    Without the flags that tell only whether there are xattrs and how mksquashfs appends.
    """
    magic, block_bytes, compression, block_log, flags = SUPERBLOCK.unpack_from(disk)
    assert magic == b"hsqs"
    return block_bytes, compression, block_log, flags & ~(NO_XATTRS | ALWAYS_FRAGMENTS)


def image_layer(program: Path, target: Path) -> bytes:
    """The program as a layer of an image."""
    limits = ImportLimits()
    tar = target.with_suffix(".tar")
    with tarfile.open(tar, "w") as archive:
        archive.add(program, "warm-up")
    with tar.open("rb") as file:
        what, token, plain = "the layer", CancelToken(), Compression.NONE
        scanned = scan_layer(file, plain, what=what, limits=limits, token=token)
        convert_layer(file, scanned, plain, target, what=what, token=token)
    return target.read_bytes()


def test_program_needs_no_libraries(program: Path) -> None:
    assert is_static_elf(program.read_bytes())


def test_program_says_that_it_is_done_and_cleans_up(root: Path) -> None:
    done = run(root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "warm\n", "warm\n")
    assert list((root / "tmp").iterdir()) == []
    assert (root / "etc/warm-up").read_text() == "cold\nwarm\n"


def test_program_names_what_it_cannot_do(root: Path) -> None:
    (root / "etc/hosts").unlink()
    done = run(root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "warm-up: /etc/hosts: No such file or directory\n"


async def test_disk_is_as_an_image_layers(program: Path, tmp_path: Path) -> None:
    ours = await pack_warm_up_layer(program, tmp_path, source_date_epoch_s=0)
    assert squashfs_shape(ours) == squashfs_shape(image_layer(program, tmp_path / "layer"))
    assert len(ours) % DISK_SECTOR_BYTES == 0


@pytest.mark.parametrize("mask", [0o022, 0o077])
async def test_equal_programs_give_equal_disks(program: Path, tmp_path: Path, mask: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = await pack_warm_up_layer(program, tmp_path / "one", source_date_epoch_s=0)
    before = os.umask(mask)
    try:
        two = await pack_warm_up_layer(program, tmp_path / "two", source_date_epoch_s=0)
    finally:
        os.umask(before)
    assert one == two
