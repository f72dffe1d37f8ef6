"""The reference semantics of the port, in memory; tests of other layers run on it."""

import asyncio
import contextlib
import time
from asyncio import StreamReader, StreamWriter
from dataclasses import replace
from pathlib import Path

from app.core.errors import (
    Conflict,
    CorruptData,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from app.core.units import MIB
from app.domain.sizing import MEMORY_BLOCK_BYTES
from app.domain.vm import Accelerator, VmEndReason
from app.hypervisor.fake_machine import FakeMachine, FakeMachineVm
from app.hypervisor.port import Capabilities, DiskSpec, Template, Vm, VmExit, VmSpec, VmStats
from app.hypervisor.spec import check_disk, check_spec

CHANNEL_DEADLINE_S = 5.0
TCG = Accelerator("tcg", "a fake machine has no KVM")


class FakeVm:
    """An engine's handle on a VM of a FakeMachine."""

    def __init__(self, hypervisor: "FakeHypervisor", vm: FakeMachineVm) -> None:
        self._hypervisor = hypervisor
        self._machine = hypervisor.machine
        self._vm = vm
        self._writer: StreamWriter | None = None

    @property
    def spec(self) -> VmSpec:
        """What it was created from."""
        return self._vm.spec

    @property
    def pid(self) -> int | None:
        """A process id that no real process has."""
        return self._vm.pid

    @property
    def started_at_ns(self) -> int:
        """When `create()` made it."""
        return self._vm.started_at_ns

    @property
    def console_path(self) -> Path:
        """The console's file."""
        return self._vm.console_path

    async def open_channel(self) -> tuple[StreamReader, StreamWriter]:
        """Connect to the guest callable of the machine."""
        self._check_there()
        vm = self._vm
        if vm.link is not None:
            if not vm.link.host[1].is_closing():
                raise Unavailable(f"The channel of VM {vm.spec.id} is held by another connection")
            await self._wait_link_gone()
            self._check_there()
        link = await self._machine.connect(vm)
        self._writer = link.host[1]
        return link.host

    async def _wait_link_gone(self) -> None:
        link = self._vm.link
        if link is None or link.task is None:
            return
        done, _ = await asyncio.wait({link.task}, timeout=CHANNEL_DEADLINE_S)
        if not done:
            raise DeadlineExceeded(
                f"VM {self.spec.id} did not let the last channel connection go "
                f"within {CHANNEL_DEADLINE_S:g} s"
            )

    async def attach_disk(self, disk: DiskSpec) -> None:
        """Note the disk; the file must exist."""
        check_disk(disk)
        self._check_there()
        if disk.serial in self._vm.disks:
            raise Conflict(f"VM {self.spec.id} has a disk {disk.serial} already")
        await self._check_image(disk)
        await self._reach_monitor("attach a disk")
        if self._machine.faults.attach_gate is not None:
            await self._machine.faults.attach_gate.wait()
        self._check_there()
        self._hypervisor.check_not_shared(disk)
        if self._vm.disks.setdefault(disk.serial, disk) is not disk:
            raise Conflict(f"VM {self.spec.id} has a disk {disk.serial} already")

    async def detach_disk(self, serial: str) -> None:
        """Forget the disk."""
        self._check_there()
        if serial not in self._vm.disks:
            raise NotFound(f"VM {self.spec.id} has no disk {serial}")
        await self._reach_monitor("detach a disk")
        self._vm.disks.pop(serial, None)

    async def stats(self) -> VmStats:
        """Time since the start as CPU time, a tenth of the memory as resident."""
        self._check_there()
        return VmStats(
            cpu_ns=time.monotonic_ns() - self._vm.started_monotonic_ns,
            resident_bytes=self.spec.memory_bytes // 10,
        )

    async def relabel(self, labels: dict[str, str]) -> None:
        """Replace the labels on the machine."""
        self._check_there()
        self._vm.spec = replace(self._vm.spec, labels=dict(labels))

    async def is_paused(self) -> bool:
        """Whether the machine was told to pause it."""
        self._check_there()
        return bool(self._vm.pause_reason)

    @property
    def pause_reason(self) -> str:
        """What the machine was told."""
        return self._vm.pause_reason

    async def stop(self, reason: VmEndReason, *, grace_s: float) -> VmExit:
        """End it; with a silent monitor only after the grace."""
        self._hypervisor.check_open()
        if self._vm.exit is None and self._machine.faults.monitor_silent:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._vm.ended.wait()
        if self._vm.exit is not None:
            return self._vm.exit
        return await self._machine.end(
            self.spec.id, VmExit(reason, f"stopped by the engine ({reason.value})")
        )

    async def wait(self) -> VmExit:
        """Wait for the end."""
        await self._vm.ended.wait()
        if self._vm.exit is None:
            raise Unavailable(f"VM {self.spec.id} ended without a reason")
        return self._vm.exit

    async def discard(self) -> None:
        """Remove what is left of it."""
        if self._vm.exit is None:
            raise Conflict(
                f"VM {self.spec.id} still runs", advice="Stop it before it is discarded."
            )
        await self._machine.discard(self.spec.id)
        self._hypervisor.forget(self.spec.id)

    def close_channel(self) -> None:
        """Close the engine's end of the channel, as the engine's end does."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _check_image(self, disk: DiskSpec) -> None:
        if not await asyncio.to_thread(disk.path.is_file):
            raise NotFound(f"The image of disk {disk.serial} does not exist: {disk.path}")

    async def _reach_monitor(self, what: str) -> None:
        await asyncio.sleep(0)  # a real monitor always yields to others
        if self._machine.faults.monitor_silent:
            raise DeadlineExceeded(f"VM {self.spec.id} did not answer when asked to {what}")

    def _check_there(self) -> None:
        self._hypervisor.check_open()
        if self._vm.exit is not None:
            raise Unavailable(f"VM {self.spec.id} is gone: {self._vm.exit.detail}")


class FakeTemplate:
    """A saved VM of a FakeMachine: its spec is all that there is to it."""

    def __init__(self, spec: VmSpec) -> None:
        self.spec = spec
        self.is_usable = True

    @property
    def key(self) -> str:
        """Kernel, initrd, command line and shape."""
        return repr(shape_of(self.spec))

    @property
    def memory_used_bytes(self) -> int:
        """A tenth of its memory."""
        return self.spec.memory_bytes // 10

    async def close(self) -> None:
        """No clones any more."""
        self.is_usable = False


def shape_of(spec: VmSpec) -> tuple[object, ...]:
    """What a clone has in common with its template, its memory aside."""
    return (spec.kernel, spec.initrd, spec.cmdline, spec.vcpus)


class FakeHypervisor:
    """Runs VMs on a FakeMachine.

    Args:
        machine: Stays when this engine's hypervisor is closed.
        accelerator: What it claims to run on.
        can_clone: Whether it has templates.
    """

    name = "fake"

    def __init__(
        self, machine: FakeMachine, *, accelerator: Accelerator = TCG, can_clone: bool = False
    ) -> None:
        self.machine = machine
        self.capabilities = Capabilities(
            disk_hot_add=True,
            snapshot=can_clone,
            memory_block_bytes=MEMORY_BLOCK_BYTES if can_clone else 0,
        )
        self._accelerator = accelerator
        self._vms: dict[str, FakeVm] = {}
        self._creating: set[str] = set()
        self._closed = False

    async def accelerator(self) -> Accelerator:
        """What the constructor was told."""
        return self._accelerator

    async def create(self, spec: VmSpec) -> Vm:
        """Begin a VM on the machine."""
        self.check_open()
        check_spec(spec)
        await asyncio.to_thread(_check_files, spec)
        if spec.id in self.machine.vms or spec.id in self._creating:
            raise Conflict(f"A VM {spec.id} exists already")
        for disk in spec.disks:
            self.check_not_shared(disk)
        self._creating.add(spec.id)
        try:
            vm = FakeVm(self, await self.machine.boot(spec))
        finally:
            self._creating.discard(spec.id)
        self._vms[spec.id] = vm
        return vm

    async def save_template(self, vm: Vm) -> Template:
        """Keep the spec and end the VM."""
        self.check_open()
        if not vm.spec.for_template:
            raise InvalidArgument(f"VM {vm.spec.id} was not created for a template")
        await vm.stop(VmEndReason.STOPPED, grace_s=0)
        await vm.discard()
        return FakeTemplate(vm.spec)

    async def clone(self, template: Template, spec: VmSpec) -> Vm:
        """Begin a VM whose guest starts anew: the machine's guests keep nothing in memory."""
        self.check_open()
        extra_bytes = spec.memory_bytes - template.spec.memory_bytes
        if spec.for_template or shape_of(spec) != shape_of(template.spec):
            raise InvalidArgument(f"VM {spec.id} does not have the shape of its template")
        if extra_bytes < 0 or extra_bytes % MEMORY_BLOCK_BYTES:
            raise InvalidArgument(
                f"VM {spec.id}: memory above the template's comes in blocks of "
                f"{MEMORY_BLOCK_BYTES // MIB} MiB"
            )
        if not isinstance(template, FakeTemplate) or not template.is_usable:
            raise CorruptData("The template can't be used any more")
        return await self.create(spec)

    async def regain_templates(self) -> list[Template]:
        """None: the machine's VMs hold no templates."""
        self.check_open()
        return []

    async def adopt(self) -> list[Vm]:
        """Take hold of everything on the machine."""
        self.check_open()
        for vm_id, vm in self.machine.vms.items():
            if vm_id not in self._vms:
                self._vms[vm_id] = FakeVm(self, vm)
        return list(self._vms.values())

    async def close(self) -> None:
        """Close the channels; the machine's VMs stay."""
        self._closed = True
        for vm in self._vms.values():
            vm.close_channel()

    def check_open(self) -> None:
        """Refuse work after `close()`."""
        if self._closed:
            raise Unavailable("The hypervisor has been closed")

    def check_not_shared(self, disk: DiskSpec) -> None:
        """Refuse an image that a running VM writes, or that is to be written while one reads it."""
        for vm in self.machine.vms.values():
            for other in vm.disks.values():
                both_read = other.read_only and disk.read_only
                if vm.exit is None and other.path == disk.path and not both_read:
                    raise Conflict(f"The image {disk.path} is in use by VM {vm.spec.id}")

    def forget(self, vm_id: str) -> None:
        """Drop the handle of a discarded VM."""
        self._vms.pop(vm_id, None)


def _check_files(spec: VmSpec) -> None:
    files = {"kernel": spec.kernel, "initrd": spec.initrd}
    files |= {f"image of disk {disk.serial}": disk.path for disk in spec.disks}
    for what, path in files.items():
        if not path.is_file():
            raise NotFound(f"The {what} does not exist: {path}")
