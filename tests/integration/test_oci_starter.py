"""The starter image from this machine's own busybox."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from app.core.errors import PrerequisiteMissing
from app.oci.starter import BUSYBOX_PATH, import_starter, is_static_elf
from tests.integration.image_lab import files_below, open_store
from tests.integration.squashfs_tree import list_disk, read_file


@pytest.fixture(autouse=True)
def _busybox() -> None:
    if not BUSYBOX_PATH.exists() or not is_static_elf(BUSYBOX_PATH.read_bytes()):
        pytest.skip("busybox-static is not installed")


async def test_starter_is_a_busybox_image(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        image = await import_starter(store)
        assert store.get("busybox") == image
        assert image.config.cmd == ("sh",)
        assert image.config.env[0].startswith("PATH=")
        [disk] = await store.layer_disks(image)
    tree = list_disk(disk)
    assert tree["/bin/sh"].endswith("-> busybox")
    assert tree["/tmp"] == "drwxrwxrwt 0/0"
    assert tree["/root"] == "drwx------ 0/0"
    assert {"/proc", "/sys", "/dev", "/etc/passwd", "/etc/group", "/usr/bin/env"} <= set(tree)
    assert read_file(disk, "bin/busybox") == BUSYBOX_PATH.read_bytes()
    assert b"root:x:0:0:" in read_file(disk, "etc/passwd")


async def test_starter_has_the_same_id_everywhere(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "two"):
        async with open_store(tmp_path / name) as store:
            ids.append((await import_starter(store)).id)
    assert ids[0] == ids[1]


async def test_starter_again_adds_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        first = await import_starter(store)
        files = files_below(tmp_path)
        assert await import_starter(store) == first
        assert files_below(tmp_path) == files


def test_starter_root_filesystem_runs(tmp_path: Path) -> None:
    """Every applet link leads to a program that runs in the tree alone (chroot needs root)."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    disk = asyncio.run(make_disk(tmp_path / "store"))
    root = tmp_path / "root"
    subprocess.run(["unsquashfs", "-d", root, disk], check=True, capture_output=True)
    script = "id -un && ls -ld /tmp && cat /etc/os-release"
    done = subprocess.run(
        ["chroot", root, "/bin/sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("root\ndrwxrwxrwt")
    assert "ID=busybox" in done.stdout


async def make_disk(root: Path) -> Path:
    async with open_store(root) as store:
        [disk] = await store.layer_disks(await import_starter(store))
        return disk


@pytest.mark.parametrize("content", [None, b"#!/bin/sh\n", b"\x7fELF" + bytes(100)])
async def test_starter_refuses_what_is_no_static_program(
    tmp_path: Path, content: bytes | None
) -> None:
    program = tmp_path / "busybox"
    if content is not None:
        program.write_bytes(content)
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(PrerequisiteMissing) as caught:
            await import_starter(store, program)
    assert "busybox-static" in caught.value.advice


async def test_starter_refuses_a_dynamic_program(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        with pytest.raises(PrerequisiteMissing, match="not a static program"):
            await import_starter(store, Path("/bin/cat"))


@pytest.fixture
def static_program(tmp_path: Path) -> Path:
    """A static program that is no busybox."""
    source = tmp_path / "tool.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("cat"); return 0; }\n')
    built = subprocess.run(["gcc", "-static", "-o", tmp_path / "tool", source], check=False)
    if built.returncode != 0:
        pytest.skip("no static C library")
    return tmp_path / "tool"


async def test_starter_refuses_a_static_program_without_a_shell(
    tmp_path: Path, static_program: Path
) -> None:
    async with open_store(tmp_path / "store") as store:
        with pytest.raises(PrerequisiteMissing, match="has no shell"):
            await import_starter(store, static_program)
