"""The imaginary host on which the fake hypervisor's VMs live, and what can go wrong on it.

It outlives FakeHypervisor objects as a host outlives engines: a test lets go of one hypervisor,
makes another over the same machine, and that one adopts. Faults are injected here.
"""

import asyncio
import shutil
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from app.core.errors import NotFound, SlipwayError
from app.domain.vm import VmEndReason
from app.hypervisor.fake_link import FakeLink
from app.hypervisor.port import DiskSpec, VmExit, VmSpec
from app.hypervisor.steps import run_whole

Guest = Callable[[VmSpec, StreamReader, StreamWriter], Awaitable[None]]
"""Plays the guest on one connection of the channel; see FakeMachine."""

FIRST_PID = 2**30  # above any real Linux process id (pid_max <= 2**22)


@dataclass
class Faults:
    """What goes wrong next; tests set the fields.

    Attributes:
        create_error: Raised by every `create()` after its run directory exists.
        create_gate: While set, `create()` waits half-way for this event.
        attach_gate: While set, `attach_disk()` waits for this event: a slow disk.
        monitor_silent: The monitor does not answer: attach, detach and quit run into deadlines.
        silent_guest: Guests of VMs created from now on never say a byte.
    """

    create_error: SlipwayError | None = None
    create_gate: asyncio.Event | None = None
    attach_gate: asyncio.Event | None = None
    monitor_silent: bool = False
    silent_guest: bool = False

    async def meet_create(self) -> None:
        """Let a create that is half-way wait or fail, as set."""
        if self.create_gate is not None:
            await self.create_gate.wait()
        if self.create_error is not None:
            raise self.create_error


@dataclass
class FakeMachineVm:
    """A VM as the machine sees it; FakeVm is an engine's handle on it."""

    spec: VmSpec
    pid: int
    started_at_ns: int
    started_monotonic_ns: int
    directory: Path
    silent: bool
    disks: dict[str, DiskSpec]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: VmExit | None = None
    pause_reason: str = ""
    link: FakeLink | None = None
    carried_to_host: bytes = b""
    carried_to_guest: bytes = b""
    cut_to_host_after_bytes: int | None = None
    cut_to_guest_after_bytes: int | None = None

    @property
    def console_path(self) -> Path:
        """Where the console's text is."""
        return self.directory / "console.log"


class FakeMachine:
    """Holds VMs; an async context manager whose exit takes everything down.

    The guest callable is called once for each connection of a VM's channel with the far ends of
    it, and keeps its own state by `spec.id`. The host's disconnect is EOF for it. If it returns
    while the host is still connected, the guest has switched itself off; if it raises then, the
    guest kernel has panicked.
    """

    def __init__(self, run_root: Path, guest: Guest) -> None:
        self.run_root = run_root
        self.faults = Faults()
        self.vms: dict[str, FakeMachineVm] = {}
        self._guest = guest
        self._next_pid = FIRST_PID
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for vm in list(self.vms.values()):
            await self.end(vm.spec.id, VmExit(VmEndReason.KILLED, "the fake machine went down"))
        if self._links:
            await asyncio.wait(self._links)

    async def boot(self, spec: VmSpec) -> FakeMachineVm:
        """Begin a VM; after failure or cancellation nothing of it is left."""
        directory = self.run_root / spec.id
        try:
            await run_whole(directory.mkdir, parents=True)
            await self.faults.meet_create()
            vm = FakeMachineVm(
                spec=spec,
                pid=self._next_pid,
                started_at_ns=time.time_ns(),
                started_monotonic_ns=time.monotonic_ns(),
                directory=directory,
                silent=self.faults.silent_guest,
                disks={disk.serial: disk for disk in spec.disks},
            )
            await self.print_console(vm, "fake: booting\n")
        except BaseException:
            await run_whole(shutil.rmtree, directory, ignore_errors=True)
            raise
        self._next_pid += 1
        self.vms[spec.id] = vm
        return vm

    async def connect(self, vm: FakeMachineVm) -> FakeLink:
        """Make the channel's next connection; the earlier one must have ended."""
        guest = _mute if vm.silent else self._guest
        link = await FakeLink.open(
            lambda reader, writer: guest(vm.spec, reader, writer),
            to_host=vm.carried_to_host,
            to_guest=vm.carried_to_guest,
        )
        vm.carried_to_host = vm.carried_to_guest = b""
        link.to_host.left_bytes = vm.cut_to_host_after_bytes
        link.to_guest.left_bytes = vm.cut_to_guest_after_bytes
        vm.cut_to_host_after_bytes = vm.cut_to_guest_after_bytes = None
        vm.link = link
        task = asyncio.create_task(self._run_link(vm, link), name=f"fake-channel-{vm.spec.id}")
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        link.task = task
        if vm.exit is not None:  # it ended while the connection was being made
            await self._drop_link(vm)
        return link

    async def _run_link(self, vm: FakeMachineVm, link: FakeLink) -> None:
        outcome = await link.run()
        vm.carried_to_host, vm.carried_to_guest = link.to_host.rest, link.to_guest.rest
        vm.link = None
        if vm.exit is not None:
            return
        if outcome.guest_error is not None:
            await self.panic(vm.spec.id, repr(outcome.guest_error))
        elif outcome.guest_returned:
            await self.power_off(vm.spec.id)

    async def end(self, vm_id: str, vm_exit: VmExit) -> VmExit:
        """End a VM with its first reason; what it was connected to sees EOF."""
        vm = self._vm(vm_id)
        if vm.exit is None:
            vm.exit = vm_exit
            await self._drop_link(vm)
            vm.ended.set()
        return vm.exit

    async def power_off(self, vm_id: str) -> VmExit:
        """The guest switches itself off."""
        return await self.end(
            vm_id, VmExit(VmEndReason.POWERED_OFF, "the guest switched itself off")
        )

    async def panic(self, vm_id: str, text: str = "fatal exception") -> VmExit:
        """The guest kernel panics."""
        vm = self._vm(vm_id)
        await self.print_console(vm, f"Kernel panic - not syncing: {text}\n")
        return await self.end(
            vm_id, VmExit(VmEndReason.PANIC, f"the guest kernel panicked: {text}")
        )

    async def kill(self, vm_id: str) -> VmExit:
        """Somebody on the host sends the VM's process SIGKILL."""
        return await self.end(
            vm_id, VmExit(VmEndReason.KILLED, "the VM's process was killed by signal 9")
        )

    async def oom_kill(self, vm_id: str) -> VmExit:
        """The host runs out of memory and its kernel picks this VM."""
        return await self.end(
            vm_id,
            VmExit(VmEndReason.OUT_OF_HOST_MEMORY, "the host ran out of memory and killed the VM"),
        )

    async def fail(self, vm_id: str, stderr: str) -> VmExit:
        """The hypervisor's process ends by itself with an error."""
        return await self.end(vm_id, VmExit(VmEndReason.FAILED, stderr))

    def pause(self, vm_id: str, reason: str) -> None:
        """The hypervisor holds the VM, as QEMU does when an image can't grow."""
        self._vm(vm_id).pause_reason = reason

    def resume(self, vm_id: str) -> None:
        """The hypervisor lets the VM go on."""
        self._vm(vm_id).pause_reason = ""

    async def tear_channel(self, vm_id: str) -> None:
        """Break the channel's connection; bytes in flight are lost. No-op if there is none."""
        await self._drop_link(self._vm(vm_id))

    def cut_channel_after(
        self, vm_id: str, *, to_host_bytes: int | None = None, to_guest_bytes: int | None = None
    ) -> None:
        """Break the next connection once so many bytes went through in a direction.

        The rest of the chunk that is cut comes first on the connection after it, as with QEMU.
        """
        vm = self._vm(vm_id)
        vm.cut_to_host_after_bytes = to_host_bytes
        vm.cut_to_guest_after_bytes = to_guest_bytes

    async def print_console(self, vm: FakeMachineVm, text: str) -> None:
        """Append to the VM's console file."""

        def append() -> None:
            with vm.console_path.open("a", encoding="utf-8") as file:
                file.write(text)

        await asyncio.to_thread(append)

    async def discard(self, vm_id: str) -> None:
        """Forget an ended VM and remove its run directory."""
        vm = self.vms.pop(vm_id, None)
        if vm is not None:
            await asyncio.to_thread(shutil.rmtree, vm.directory, ignore_errors=True)

    async def _drop_link(self, vm: FakeMachineVm) -> None:
        link = vm.link
        if link is None or link.task is None or link.task is asyncio.current_task():
            return
        link.stop()
        await asyncio.wait({link.task})

    def _vm(self, vm_id: str) -> FakeMachineVm:
        try:
            return self.vms[vm_id]
        except KeyError:
            raise NotFound(f"The fake machine has no VM {vm_id}") from None


async def _mute(_spec: VmSpec, reader: StreamReader, _writer: StreamWriter) -> None:
    while await reader.read(4096):
        pass
