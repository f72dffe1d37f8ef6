"""Saving a VM to descriptors and bringing one back: QEMU's migration, without copying memory.

x-ignore-shared leaves out memory that both sides map from the same file (QEMU 7.2).
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.core.errors import Conflict, CorruptData, DeadlineExceeded, Unavailable
from app.hypervisor.port import DiskSpec
from app.hypervisor.qemu.arguments import FIRST_DISK_FDSET
from app.hypervisor.qemu.disks import add_commands, is_lock_failure
from app.hypervisor.qemu.monitor import Monitor, QmpRefused
from app.hypervisor.qemu.slots import slot_for

MOVE_DEADLINE_S = 15.0

_CAPABILITIES = {
    "capabilities": [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
}


class Migration:
    """One VM's; `on_event` must be given the monitor's events."""

    def __init__(self, vm_id: str, monitor: Monitor) -> None:
        self._vm_id = vm_id
        self._monitor = monitor
        self._outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_event(self, name: str, data: Mapping[str, Any]) -> None:
        """Note QMP's MIGRATION when it tells an end."""
        status = str(data.get("status", ""))
        is_end = name == "MIGRATION" and status in ("completed", "failed", "cancelled")
        if is_end and not self._outcome.done():
            self._outcome.set_result(status)

    async def save(self, state_fd: int) -> None:
        """Hold the VM for good and write its state to a descriptor of ours.

        Raises:
            Unavailable, DeadlineExceeded: It failed.
        """
        await self._all(("stop", None), ("migrate-set-capabilities", _CAPABILITIES))
        await self._monitor.name_fd(state_fd, "state")
        await self._monitor.execute("migrate", {"uri": "fd:state"})
        await self._wait("saved")

    async def load(self, state_fd: int) -> None:
        """Read the state; the VM is held afterwards. QEMU ends where the state does not fit.

        Raises:
            CorruptData: It could not become what was saved.
            DeadlineExceeded: It took too long.
        """
        try:
            await self._all(
                ("migrate-set-capabilities", _CAPABILITIES),
                ("migrate-incoming", {"uri": f"fd:{state_fd}"}),
            )
            await self._wait("restored")
        except DeadlineExceeded:
            raise
        except Unavailable as exc:
            raise CorruptData(f"The template can't be restored: {exc.message}") from exc

    async def complete(self, disks: tuple[DiskSpec, ...], module_bytes: int) -> None:
        """Add what the template had not, and let the VM run.

        Raises:
            Conflict: Another VM has one of the images writable.
            QmpRefused: One of the devices is not possible.
        """
        commands: list[tuple[str, Mapping[str, object] | None]] = []
        if module_bytes:
            backend = {"qom-type": "memory-backend-ram", "id": "module", "size": module_bytes}
            device = {"driver": "pc-dimm", "id": "module-0", "memdev": "module"}
            commands += [("object-add", backend), ("device_add", device)]
        for number, disk in enumerate(disks):
            slot = slot_for(disk.serial, read_only=disk.read_only)
            commands += add_commands(disk, FIRST_DISK_FDSET + number, slot)
        try:
            await self._all(*commands)
        except QmpRefused as exc:
            if is_lock_failure(exc.description):
                raise Conflict(
                    f"VM {self._vm_id}: a disk image is in use by another VM: {exc.description}"
                ) from exc
            raise
        await self._monitor.execute("cont")

    async def _all(self, *commands: tuple[str, Mapping[str, object] | None]) -> None:
        """Send commands without waiting in between; the first failure is raised, all are awaited.

        QEMU carries them out in their order.
        """
        answers = await asyncio.gather(
            *(self._monitor.execute(name, arguments) for name, arguments in commands),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _wait(self, what: str) -> None:
        lost = asyncio.create_task(self._monitor.wait_lost())
        try:
            ends: set[asyncio.Future[Any]] = {self._outcome, lost}
            await asyncio.wait(ends, timeout=MOVE_DEADLINE_S, return_when="FIRST_COMPLETED")
        finally:
            lost.cancel()
        if not self._outcome.done():
            if lost.done() and not lost.cancelled():
                raise Unavailable(f"VM {self._vm_id} ended while it was {what}")
            raise DeadlineExceeded(f"VM {self._vm_id} was not {what} within {MOVE_DEADLINE_S:g} s")
        if self._outcome.result() != "completed":
            raise QmpRefused(
                f"VM {self._vm_id} was not {what}: {self._outcome.result()}",
                description=self._outcome.result(),
            )
