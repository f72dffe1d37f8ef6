"""The port every hypervisor implements.

Semantics are fixed by `fake.py` and the contract suite in tests/contract, which every
implementation passes. A VM outlives the engine: the engine may die at any moment, and `adopt()` of
the next one finds what runs.
"""

from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.domain.vm import Accelerator, VmEndReason

CONSOLE_HEAD_BYTES = 64 * 1024  # of a console's beginning (the boot) that is kept for ever
CONSOLE_LIMIT_BYTES = 256 * 1024  # size that a console file never exceeds

IsAlive = Callable[[StreamReader, StreamWriter], Awaitable[bool]]
"""Tells over a fresh channel whether the agent answers; may wait, the caller has the deadline."""


@dataclass(frozen=True)
class Capabilities:
    """What an implementation can do, asked before, instead of failing after."""

    disk_hot_add: bool
    snapshot: bool
    """`save_template` and `clone` work."""
    memory_block_bytes: int
    """What a clone has above its template's memory comes in blocks of this size; 0: it can't."""


@dataclass(frozen=True)
class DiskSpec:
    """A disk of a VM.

    Attributes:
        serial: Identifies the disk inside the guest (SCSI serial, at most 20 characters of
            [A-Za-z0-9-]); never rely on sdX names.
        path: A raw image on the host.
        read_only: Several VMs may share a read-only image at once.
    """

    serial: str
    path: Path
    read_only: bool


@dataclass(frozen=True)
class VmSpec:
    """Everything needed to create a VM.

    Attributes:
        id: 12 lower-case hex digits, unique on the host.
        kernel: ELF vmlinux booted by PVH (QEMU) or kernel-direct (Hyper-V).
        initrd: Uncompressed cpio newc.
        cmdline: Kernel command line; the implementation appends what its devices need.
        labels: Free strings kept in the run directory and given back by `adopt()`
            (the engine keeps the container's id there).
        for_template: `save_template` shall be possible: such a VM has no disks.
    """

    id: str
    vcpus: int
    memory_bytes: int
    kernel: Path
    initrd: Path
    cmdline: str
    disks: tuple[DiskSpec, ...]
    labels: dict[str, str]
    for_template: bool = False


@dataclass(frozen=True)
class ProbeGuest:
    """The real guest, for finding out which accelerator boots it.

    Attributes:
        kernel: As in `VmSpec`.
        initrd: As in `VmSpec`.
        cmdline: As in `VmSpec`.
        key: Changes whenever kernel, initrd or command line change; part of the cache key.
        is_alive: The handshake with the agent (the guest layer's, passed in by `main`).
    """

    kernel: Path
    initrd: Path
    cmdline: str
    key: str
    is_alive: IsAlive


@dataclass(frozen=True)
class VmExit:
    """How a VM ended; `detail` is a plain sentence for the operator."""

    reason: VmEndReason
    detail: str


@dataclass(frozen=True)
class VmStats:
    """The VM process as the host pays for it.

    Attributes:
        cpu_ns: CPU time used since the VM began.
        resident_bytes: Proportional set size (PSS): shared pages counted by share.
        template_bytes: Of it, the share of a template's memory that its clones have in common.
    """

    cpu_ns: int
    resident_bytes: int
    template_bytes: int = 0


class Vm(Protocol):
    """A running VM: created by this engine or adopted from an earlier one."""

    @property
    def spec(self) -> VmSpec:
        """What it was created from; after adoption read back from the run directory."""

    @property
    def pid(self) -> int | None:
        """Process id on the host, where there is one."""

    @property
    def started_at_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch, when the VM's process began."""

    @property
    def console_path(self) -> Path:
        """The serial console's file; readable while the VM runs and until `discard()`.

        Never larger than CONSOLE_LIMIT_BYTES: the first CONSOLE_HEAD_BYTES and the newest output
        stay, a line in between says how much is missing. The file is replaced when it is cut, so
        followers reopen it by path.
        """

    async def open_channel(self) -> tuple[StreamReader, StreamWriter]:
        """Connect the byte stream to the agent.

        One connection at a time; a later one is possible once the earlier writer's `close()` was
        called. Bytes in flight at a disconnect may be lost or torn on both sides, and the rest of
        a torn buffer may come first on the next connection: resynchronising is the caller's.
        The connection ends (EOF) with the VM. Works before the guest listens: what is written
        then waits.

        Raises:
            Unavailable: The VM is gone, or somebody else holds the channel.
            DeadlineExceeded: No connection within the implementation's deadline.
        """

    async def attach_disk(self, disk: DiskSpec) -> None:
        """Hot-add a disk. The guest must wait until it appears by serial.

        After a failure or cancellation the disk is not attached and its file not held; after
        DeadlineExceeded that is not known.

        Raises:
            InvalidArgument: The serial has a wrong form.
            Conflict: A disk with that serial is attached already, or another VM has the image
                writable.
            NotFound: The image file does not exist.
            Unavailable: The VM is gone.
            DeadlineExceeded: The hypervisor did not answer.
        """

    async def detach_disk(self, serial: str) -> None:
        """Remove a disk; returns once the hypervisor has let the file go.

        Raises:
            NotFound: No such disk.
            Unavailable: The VM is gone.
            DeadlineExceeded: The hypervisor did not answer.
        """

    async def relabel(self, labels: dict[str, str]) -> None:
        """Replace the labels, durably: a later engine's `adopt()` gives the new ones.

        Raises:
            Unavailable: The VM is gone.
        """

    async def stats(self) -> VmStats:
        """Sample CPU time and memory; costs about a millisecond.

        Memory is measured at most every 10 s, in between the last value is given.

        Raises:
            Unavailable: The VM is gone.
        """

    async def is_paused(self) -> bool:
        """Whether the hypervisor holds the VM (then silence is no fault)."""

    @property
    def pause_reason(self) -> str:
        """Why the hypervisor holds the VM, a plain sentence; empty while it runs.

        A VM whose disk image could not grow (host disk full) is held before data is lost and goes
        on by itself once there is space.
        """

    async def stop(self, reason: VmEndReason, *, grace_s: float) -> VmExit:
        """End the VM by the ladder: quit, SIGTERM after `grace_s`, SIGKILL 2 s later, reap.

        The guest is not asked: who wants it to sync and switch off first says so to the agent and
        waits. Disk images are flushed by quit. `reason` is the VmExit's, unless the VM ended by
        itself before: then that reason wins. Idempotent, and cancelling the caller does not stop
        the ladder. Afterwards no process, socket or mapping of the VM is left; the run directory
        stays until `discard()`.
        """

    async def wait(self) -> VmExit:
        """Wait, without a deadline, until the VM has ended; any number of waiters, also after."""

    async def discard(self) -> None:
        """Remove the run directory of an ended VM. Idempotent.

        Raises:
            Conflict: The VM still runs.
        """


class Template(Protocol):
    """A saved VM, of which `Hypervisor.clone` makes any number of running ones.

    Its memory can be written by nobody any more, the VMs made from it included: each has its own
    copy of what it changes.
    """

    @property
    def spec(self) -> VmSpec:
        """What the saved VM was made from."""

    @property
    def key(self) -> str:
        """Fingerprint of all that a clone must have in common with it.

        Kernel, initrd, command line, vCPUs, memory, accelerator, device layout and the version
        of the hypervisor.
        """

    @property
    def memory_used_bytes(self) -> int:
        """Memory of the host that it occupies, shared by all its clones."""

    async def close(self) -> None:
        """Let it go; running clones keep what they have of it. Idempotent."""


class Hypervisor(Protocol):
    """A way to run VMs on this host."""

    @property
    def name(self) -> str:
        """One of "qemu", "hyper-v" and "fake"."""

    @property
    def capabilities(self) -> Capabilities:
        """What this implementation can do here."""

    async def accelerator(self) -> Accelerator:
        """What really runs guest instructions; the first call may boot a probe VM.

        Never hangs: a probe that does not come up within its deadline is killed and means "no".
        """

    async def create(self, spec: VmSpec) -> Vm:
        """Start a VM; returns when its process runs (the guest is still booting).

        After a failure or cancellation nothing is left: no process, socket or run directory.

        Raises:
            InvalidArgument: The spec is malformed (id, serials, vcpus, memory).
            Conflict: A VM with that id exists, or another VM has a disk image writable.
            NotFound: Kernel, initrd or a disk image does not exist.
            Unavailable: The hypervisor refused; its own words are in the message.
            DeadlineExceeded: The hypervisor's process came up and did not answer.
            ResourceExhausted: The host is out of memory or disk.
            PrerequisiteMissing: The hypervisor is not installed.
        """

    async def save_template(self, vm: Vm) -> Template:
        """Save a VM that was created `for_template`, and end it.

        Its channel is closed, and its agent has been asked to be ready for it. Whatever happens
        it is ended and its run directory gone afterwards.

        Raises:
            InvalidArgument: The VM was not created `for_template`; it runs on.
            Unavailable: The hypervisor refused; its own words are in the message.
            DeadlineExceeded: It did not answer.
            ResourceExhausted: The host is out of memory.
        """

    async def clone(self, template: Template, spec: VmSpec) -> Vm:
        """Start a VM as a copy of the template; returns when it runs on from where that stood.

        Kernel, initrd, command line and vCPUs of `spec` are the template's; its memory may be
        larger by whole `capabilities.memory_block_bytes`, which are plugged, and its disks
        attached, before the guest runs on. The guest has still to put that memory online, and
        everything in it that must be unique is still the template's. After a failure or
        cancellation nothing is left.

        Raises:
            InvalidArgument: The spec does not fit the template.
            CorruptData: The template can't be used (any more): make a new one.
            Conflict, NotFound, Unavailable, DeadlineExceeded, ResourceExhausted: As `create`.
        """

    async def regain_templates(self) -> list[Template]:
        """Templates of earlier engines that clones found by `adopt()` still hold; maybe none.

        Only such as certainly are what was saved then, and fit this hypervisor now.
        """

    async def adopt(self) -> list[Vm]:
        """Find the VMs of this data directory that still run, from earlier engines.

        Run directories whose VM has ended are returned too: their `wait()` answers at once with
        what the run directory tells, so that the engine can repair its records, then `discard()`.
        A guest that had switched itself off or panicked is ended here and has that reason. VMs
        that this object holds already are returned as they are.
        """

    async def close(self) -> None:
        """Let go of connections and files; VMs go on running. Idempotent.

        Open channels end with EOF; the Vm objects of this hypervisor raise Unavailable afterwards.
        """
