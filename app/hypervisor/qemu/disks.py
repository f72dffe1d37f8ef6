"""Hot-adding and removing disks over QMP."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

from app.core.errors import Conflict, DeadlineExceeded, NotFound, SlipwayError
from app.hypervisor.port import DiskSpec
from app.hypervisor.qemu.arguments import (
    FIRST_DISK_FDSET,
    blockdev,
    disk_device,
    disk_device_id,
    disk_node,
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


@dataclass
class _Seen:
    """What QEMU has told, and what was done since: nobody else gives the VM disks.

    Attributes:
        devices: Ids of all devices.
        serials: Of the disk whose image is in each descriptor set; other sets are None.
    """

    devices: set[str]
    serials: dict[int, str | None]

    def has(self, serial: str) -> bool:
        """Whether there is a disk with that serial, plugged or behind a slot."""
        in_slot = any(s.serial == serial and s.node in self.devices for s in SLOTS)
        return disk_device_id(serial) in self.devices or (
            in_slot and serial in self.serials.values()
        )

    def free_set(self) -> int:
        """The number of a new descriptor set."""
        return max({*self.serials, FIRST_DISK_FDSET - 1}) + 1


class Disks:
    """The disks of one VM; what is attached is asked of QEMU, so that it holds after adoption.

    It is asked once, since each question takes longer than to attach a disk; again after a failure.
    """

    def __init__(self, vm_id: str, monitor: Monitor) -> None:
        self._vm_id = vm_id
        self._monitor = monitor
        self._lock = asyncio.Lock()
        self._deleted: dict[str, asyncio.Event] = {}
        self._seen: _Seen | None = None

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
            async with self._lock, self._looking() as seen:
                if seen.has(disk.serial):
                    raise Conflict(f"VM {self._vm_id} has a disk {disk.serial} already")
                await self._attach_whole(disk, fd, seen)
        finally:
            os.close(fd)

    @contextlib.asynccontextmanager
    async def _looking(self) -> AsyncIterator[_Seen]:
        """What there is; the caller notes what it changes. After a failure nothing is sure."""
        try:
            if self._seen is None:
                self._seen = await self._look()
            yield self._seen
        except BaseException:
            self._seen = None
            raise

    async def _attach_whole(self, disk: DiskSpec, fd: int, seen: _Seen) -> None:
        try:
            await finish(self._attach(disk, fd, seen))
        except asyncio.CancelledError:
            now = await self._look()
            if now.has(disk.serial):
                await self._detach(disk.serial, now)
            raise

    async def _attach(self, disk: DiskSpec, fd: int, seen: _Seen) -> None:
        fdset = seen.free_set()
        slot = slot_for(disk.serial, read_only=disk.read_only)
        if slot is not None and slot.node not in seen.devices:
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
        seen.serials[fdset] = disk.serial
        if slot is None:
            seen.devices.add(disk_device_id(disk.serial))

    async def detach(self, serial: str) -> None:
        """Remove a disk; see Vm.detach_disk."""
        async with self._lock, self._looking() as seen:
            if not seen.has(serial):
                raise NotFound(f"VM {self._vm_id} has no disk {serial}")
            await finish(self._detach(serial, seen))

    async def _detach(self, serial: str, seen: _Seen) -> None:
        slot = next((one for one in SLOTS if one.serial == serial), None)
        if slot is not None and disk_device_id(serial) not in seen.devices:
            for command in slot.empty_commands():
                await self._monitor.execute(*command)
        else:
            await self._unplug(serial)
            seen.devices.discard(disk_device_id(serial))
        for fdset in [number for number, one in seen.serials.items() if one == serial]:
            await self._try("remove-fd", {"fdset-id": fdset})
            del seen.serials[fdset]

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

    async def _look(self) -> _Seen:
        found = await self._monitor.execute("qom-list", {"path": "/machine/peripheral"})
        devices = {str(entry["name"]) for entry in cast(list[dict[str, Any]], found)}
        fdsets = cast(list[dict[str, Any]], await self._monitor.execute("query-fdsets"))
        serials = {
            int(fdset["fdset-id"]): next((fd.get("opaque") for fd in fdset["fds"]), None)
            for fdset in fdsets
        }
        return _Seen(devices, serials)

    async def _try(self, command: str, arguments: Mapping[str, object]) -> None:
        """Undo something; a failure is only logged, since the first error matters."""
        try:
            await self._monitor.execute(command, arguments)
        except SlipwayError as exc:
            log.warning("VM %s: clean-up failed: %s", self._vm_id, exc)
