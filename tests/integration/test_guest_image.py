"""The shipped guest, built from the distribution's real kernel package and the real agent."""

import asyncio
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.guest.image import GuestImage, build_guest
from app.resources import guest_dir
from tests.integration.agent_lab import guest_cache, require
from tests.unit.guest.test_cpio import parse

pytestmark = pytest.mark.timeout(300)

# Type of the note "Xen" that tells the entry of a PVH boot (XEN_ELFNOTE_PHYS32_ENTRY).
PVH_ENTRY = 18


def build(cache: Path, agent_source_dir: Path) -> GuestImage:
    return asyncio.run(
        build_guest(
            guest_dir() / "slipway.yml",
            cache_dir=cache,
            agent_source_dir=agent_source_dir,
            progress=lambda _line: None,
        )
    )


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> GuestImage:
    require("gcc", "make", "apt-get", "dpkg-deb")
    return build(guest_cache(tmp_path_factory.mktemp("guest")), guest_dir() / "agent")


@pytest.fixture(scope="module")
def files(guest: GuestImage) -> dict[str, bytes]:
    return {name: data for name, _, data in parse(guest.initrd.read_bytes())}


def elf_notes(vmlinux: bytes) -> Iterator[tuple[bytes, int]]:
    (table_offset,) = struct.unpack_from("<Q", vmlinux, 0x20)
    size, count = struct.unpack_from("<HH", vmlinux, 0x36)
    for index in range(count):
        header = struct.unpack_from("<IIQQQQQQ", vmlinux, table_offset + index * size)
        if header[0] == 4:  # PT_NOTE
            at, end = header[2], header[2] + header[5]
            while at < end:
                name_size, data_size, kind = struct.unpack_from("<III", vmlinux, at)
                yield vmlinux[at + 12 : at + 11 + name_size], kind
                at += 12 + (-(-name_size // 4) + -(-data_size // 4)) * 4


def test_kernel_boots_by_pvh(guest: GuestImage) -> None:
    vmlinux = guest.kernel.read_bytes()
    assert vmlinux.startswith(b"\x7fELF")
    assert (b"Xen", PVH_ENTRY) in set(elf_notes(vmlinux))
    assert guest.kernel_version.encode() in vmlinux


def test_listed_modules_are_there_and_signed(files: dict[str, bytes]) -> None:
    paths = [line for line in files["etc/modules.load"].decode().splitlines() if line[0] != "#"]
    assert len(paths) > 15
    for path in paths:
        module = files[path.removeprefix("/")]
        assert module.startswith(b"\x7fELF")
        assert module.endswith(b"~Module signature appended~\n")


def test_modules_are_in_an_order_that_loads(files: dict[str, bytes]) -> None:
    """As depmod sees it: what a module depends on stands before it."""
    loaded: set[str] = set()
    for line in files["etc/modules.load"].decode().splitlines():
        if line.startswith("#"):
            continue
        (depends,) = [
            item.removeprefix(b"depends=").decode()
            for item in files[line[1:]].split(b"\0")
            if item.startswith(b"depends=")
        ]
        assert {name.replace("-", "_") for name in depends.split(",") if name} <= loaded, line
        loaded.add(Path(line).stem.replace("-", "_"))
    assert {"virtio_console", "virtio_scsi", "sd_mod", "squashfs", "ext4", "overlay"} <= loaded


def test_channel_comes_first(files: dict[str, bytes]) -> None:
    early = files["etc/modules.load"].decode().partition("#")[0].split()
    assert early[-1].endswith("/virtio_console.ko")
    assert len(early) < 10


def test_agent_needs_no_libraries(files: dict[str, bytes], tmp_path: Path) -> None:
    agent = tmp_path / "init"
    agent.write_bytes(files["init"])
    headers = subprocess.run(
        ["readelf", "--program-headers", agent],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    assert "INTERP" not in headers
    assert str(guest_dir()).encode() not in files["init"]


def test_built_in_two_directories_the_bytes_are_equal(guest: GuestImage, tmp_path: Path) -> None:
    sources = tmp_path / "elsewhere/agent"
    shutil.copytree(guest_dir() / "agent", sources, ignore=shutil.ignore_patterns("build"))
    cache = tmp_path / "another/cache"
    shutil.copytree(guest.kernel.parents[2] / "kernels", cache / "kernels")
    other = build(cache, sources)
    assert other.initrd != guest.initrd
    assert other.key == guest.key
    assert other.initrd.read_bytes() == guest.initrd.read_bytes()
    assert other.kernel.read_bytes() == guest.kernel.read_bytes()
    assert other.warm_up_layer.read_bytes() == guest.warm_up_layer.read_bytes()
