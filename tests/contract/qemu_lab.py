"""QEMU with a real kernel as a lab of the contract suite."""

import asyncio
import contextlib
import os
import select
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from app.core.ids import new_vm_id
from app.hypervisor.port import Hypervisor, Vm, VmSpec
from app.hypervisor.qemu.hypervisor import QemuHypervisor
from tests.contract.guest_files import GuestFiles
from tests.contract.hypervisor_lab import MIB

GUEST_MEMORY_BYTES = 128 * MIB


def qemu_processes(run_root: Path) -> dict[int, str]:
    """Living QEMU processes by id, with their VM's id, by the lock that they hold."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            links = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
            is_qemu = (entry / "cmdline").read_bytes().startswith(b"/usr/bin/qemu-system")
        except OSError:
            continue
        vm_ids = [Path(link).parent.name for link in links if link.startswith(f"{run_root}/")]
        if is_qemu and vm_ids:
            found[int(entry.name)] = vm_ids[0]
    return found


class QemuLab(AbstractAsyncContextManager["QemuLab"]):
    """A data directory, and everything that was made in it."""

    def __init__(self, directory: Path, guest: GuestFiles) -> None:
        self.directory = directory
        self.run_root = directory / "v"
        self._guest = guest
        self._engines: list[QemuHypervisor] = []

    async def __aexit__(self, *_: object) -> None:
        for engine in self._engines:
            await engine.close()
        for pid in await asyncio.to_thread(qemu_processes, self.run_root):
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                await asyncio.to_thread(os.waitpid, pid, 0)

    def engine(self) -> Hypervisor:
        hypervisor = QemuHypervisor(run_root=self.run_root, accelerator="tcg")
        self._engines.append(hypervisor)
        return hypervisor

    def spec(self) -> VmSpec:
        return VmSpec(
            id=new_vm_id(),
            vcpus=1,
            memory_bytes=GUEST_MEMORY_BYTES,
            kernel=self._guest.kernel,
            initrd=self._guest.initrd,
            cmdline="quiet tsc=reliable nowatchdog",
            disks=(),
            labels={"container": "abc"},
        )

    async def kill(self, vm: Vm) -> None:
        assert vm.pid is not None
        pidfd = os.pidfd_open(vm.pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await asyncio.to_thread(select.select, [pidfd], [], [], 10)
        os.close(pidfd)

    async def leftovers(self) -> list[str]:
        pids = await asyncio.to_thread(qemu_processes, self.run_root)
        names = [path.name for path in self.run_root.iterdir()] if self.run_root.exists() else []
        return [f"vm {vm_id}" for vm_id in pids.values()] + names
