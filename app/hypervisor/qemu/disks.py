"""Hot-adding and removing disks over QMP."""

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

from app.core.errors import Conflict, DeadlineExceeded, NotFound, SlipwayError
from app.hypervisor.port import DiskSpec
from app.hypervisor.qemu.arguments import (
    FIRST_DISK_FDSET,
    blockdev,
    disk_device,
    disk_device_id,
    disk_node,
    disk_serial,
)
from app.hypervisor.qemu.launch import open_image
from app.hypervisor.qemu.monitor import Monitor, QmpRefused
from app.hypervisor.qemu.slots import SLOTS, Slot, slot_for
from app.hypervisor.steps import finish, run_whole

log = logging.getLogger(__name__)

DELETED_DEADLINE_S = 10.0


def is_lock_failure(text: str) -> bool:
    """Whether QEMU's words mean that another process has the image (block/file-posix.c)."""
    return "Failed to get" in text and "lock" in text


def add_commands(
    disk: DiskSpec, fdset: int, slot: Slot | None
) -> list[tuple[str, dict[str, object]]]:
    """QMP commands that give a VM the disk whose image is in the descriptor set."""
    if slot is not None:
        return slot.fill_commands(fdset)
    return [("blockdev-add", blockdev(disk, fdset)), ("device_add", disk_device(disk))]


class Disks:
    """The disks of one VM; what is attached is asked of QEMU, so that it holds after adoption."""

    def __init__(self, vm_id: str, monitor: Monitor) -> None:
        self._vm_id = vm_id
        self._monitor = monitor
        self._lock = asyncio.Lock()
        self._deleted: dict[str, asyncio.Event] = {}

    def on_event(self, name: str, data: Mapping[str, Any]) -> None:
        """Note QMP's DEVICE_DELETED."""
        if name == "DEVICE_DELETED" and (event := self._deleted.get(str(data.get("device")))):
            event.set()

    async def attach(self, disk: DiskSpec) -> None:
        """Add a disk; see Vm.attach_disk. Cancelled half-way it is taken out again."""
        fd = await run_whole(
            open_image, disk.path, f"image of disk {disk.serial}", read_only=disk.read_only
        )
        try:
            async with self._lock:
                if disk.serial in await self._serials():
                    raise Conflict(f"VM {self._vm_id} has a disk {disk.serial} already")
                await self._attach_whole(disk, fd)
        finally:
            os.close(fd)

    async def _attach_whole(self, disk: DiskSpec, fd: int) -> None:
        try:
            await finish(self._attach(disk, fd))
        except asyncio.CancelledError:
            if disk.serial in await self._serials():
                await self._detach(disk.serial)
            raise

    async def _attach(self, disk: DiskSpec, fd: int) -> None:
        names, fdset = await self._device_names(), await self._free_fdset()
        slot = slot_for(disk.serial, read_only=disk.read_only)
        if slot is not None and slot.node not in names:
            slot = None  # a VM that was booted for its container has none
        node = disk_node(disk.serial) if slot is None else slot.file_node
        add, use = add_commands(disk, fdset, slot)
        async with AsyncExitStack() as undo:
            await self._monitor.add_fd(fd, fdset=fdset, opaque=disk.serial)
            undo.push_async_callback(self._try, "remove-fd", {"fdset-id": fdset})
            try:
                await self._monitor.execute(*add)
                undo.push_async_callback(self._try, "blockdev-del", {"node-name": node})
                await self._monitor.execute(*use)
            except QmpRefused as exc:
                if is_lock_failure(exc.description):
                    raise Conflict(
                        f"The image {disk.path} is in use by another VM: {exc.description}"
                    ) from exc
                raise
            undo.pop_all()

    async def detach(self, serial: str) -> None:
        """Remove a disk; see Vm.detach_disk."""
        async with self._lock:
            if serial not in await self._serials():
                raise NotFound(f"VM {self._vm_id} has no disk {serial}")
            await finish(self._detach(serial))

    async def _detach(self, serial: str) -> None:
        slot = next((one for one in SLOTS if one.serial == serial), None)
        if slot is not None and disk_device_id(serial) not in await self._device_names():
            for command in slot.empty_commands():
                await self._monitor.execute(*command)
        else:
            await self._unplug(serial)
        for fdset in await self._fdsets():
            if any(fd.get("opaque") == serial for fd in fdset["fds"]):
                await self._try("remove-fd", {"fdset-id": fdset["fdset-id"]})

    async def _unplug(self, serial: str) -> None:
        device = disk_device_id(serial)
        deleted = self._deleted.setdefault(device, asyncio.Event())
        try:
            await self._monitor.execute("device_del", {"id": device})
            async with asyncio.timeout(DELETED_DEADLINE_S):
                await deleted.wait()
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"VM {self._vm_id} did not let disk {serial} go within {DELETED_DEADLINE_S:g} s"
            ) from exc
        finally:
            self._deleted.pop(device, None)
        await self._monitor.execute("blockdev-del", {"node-name": disk_node(serial)})

    async def _serials(self) -> set[str]:
        names = await self._device_names()
        plugged = {serial for name in names if (serial := disk_serial(name)) is not None}
        opened = {fd.get("opaque") for fdset in await self._fdsets() for fd in fdset["fds"]}
        return plugged | {s.serial for s in SLOTS if s.node in names and s.serial in opened}

    async def _device_names(self) -> set[str]:
        found = await self._monitor.execute("qom-list", {"path": "/machine/peripheral"})
        return {str(entry["name"]) for entry in cast(list[dict[str, Any]], found)}

    async def _fdsets(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], await self._monitor.execute("query-fdsets"))

    async def _free_fdset(self) -> int:
        taken = {int(fdset["fdset-id"]) for fdset in await self._fdsets()}
        return max(taken | {FIRST_DISK_FDSET - 1}) + 1

    async def _try(self, command: str, arguments: Mapping[str, object]) -> None:
        """Undo something; a failure is only logged, since the first error matters."""
        try:
            await self._monitor.execute(command, arguments)
        except SlipwayError as exc:
            log.warning("VM %s: clean-up failed: %s", self._vm_id, exc)
