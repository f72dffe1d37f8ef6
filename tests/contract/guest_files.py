"""The kernel and the small initramfs that the QEMU contract tests boot."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.guest.cpio import (
    character_device_entry,
    directory_entry,
    file_entry,
    write_newc,
)
from app.guest.kernel import Kernel, fetch_kernel, generic_kernel_package

SOURCE = Path(__file__).with_name("guest_echo.c")
MODULES = (
    "virtio_pci", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "pvpanic_mmio",
    "virtio_rng",
)  # fmt: skip


@dataclass(frozen=True)
class GuestFiles:
    """What a VmSpec needs."""

    kernel: Path
    initrd: Path


def find_kernel(directory: Path) -> Kernel:
    """The distribution's kernel, from SLIPWAY_TEST_GUEST_CACHE or fetched into `directory`."""
    for program in ("qemu-system-x86_64", "gcc", "apt-get", "dpkg-deb"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    cache = Path(os.environ.get("SLIPWAY_TEST_GUEST_CACHE") or directory) / "contract-kernels"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # In a thread: a fixture may ask for this inside a running loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(fetch(cache))).result()


async def fetch(cache: Path) -> Kernel:
    """The newest kernel that the cache or the distribution has."""
    return await fetch_kernel(
        generic_kernel_package(),
        MODULES,
        (),
        cache_dir=cache,
        refresh=False,
        progress=lambda _line: None,
    )


def build_guest(directory: Path) -> GuestFiles:
    """Compile guest_echo.c and pack it with the modules it loads."""
    kernel = find_kernel(directory)
    init = directory / "init"
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-o", init, SOURCE],
        check=True,
        timeout=60,
    )
    order = "".join(f"/{path}\n" for path in kernel.early)
    entries = [
        file_entry("init", init.read_bytes(), 0o755),
        file_entry("modules.order", order.encode()),
        directory_entry("dev"),
        character_device_entry("dev/console", 5, 1, 0o600),
        *(file_entry(path, kernel.read_module(path)) for path in kernel.early),
    ]
    initrd = directory / "initrd"
    with initrd.open("wb") as file:
        write_newc(entries, file, mtime_s=0)
    return GuestFiles(kernel.vmlinux, initrd)
