"""The kernel and the small initramfs that the QEMU contract tests boot."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.guest.cpio import (
    character_device_entry,
    directory_entry,
    file_entry,
    write_newc,
)
from app.guest.modules import ModuleTree

SOURCE = Path(__file__).with_name("guest_echo.c")
MODULES = ("virtio_pci", "virtio_console", "virtio_scsi", "sd_mod", "pvpanic_mmio", "virtio_rng")


@dataclass(frozen=True)
class GuestFiles:
    """What a VmSpec needs."""

    kernel: Path
    initrd: Path


def find_kernel() -> tuple[Path, ModuleTree]:
    """The ELF kernel and its modules; skips the test where there is none."""
    directory = os.environ.get("SLIPWAY_TEST_KERNEL", "")
    if not directory:
        pytest.skip("no guest kernel: set SLIPWAY_TEST_KERNEL to an unpacked kernel package")
    releases = sorted((Path(directory) / "lib/modules").iterdir())
    return Path(directory) / "vmlinux", ModuleTree(releases[-1])


def build_guest(directory: Path) -> GuestFiles:
    """Compile guest_echo.c and pack it with the modules it loads."""
    kernel, tree = find_kernel()
    init = directory / "init"
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-o", init, SOURCE],
        check=True,
        timeout=60,
    )
    modules = tree.load_order(MODULES)
    order = "".join(f"/{module.path}\n" for module in modules)
    entries = [
        file_entry("init", init.read_bytes(), 0o755),
        file_entry("modules.order", order.encode()),
        directory_entry("dev"),
        character_device_entry("dev/console", 5, 1, 0o600),
        *(file_entry(module.path, module.data) for module in modules),
    ]
    initrd = directory / "initrd"
    with initrd.open("wb") as file:
        write_newc(entries, file, mtime_s=0)
    return GuestFiles(kernel, initrd)
