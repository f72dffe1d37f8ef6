"""The port every hypervisor implements.

Semantics are fixed by `fake.py` and the contract suite in tests/contract, which every
implementation passes. A VM outlives the engine: the engine may die at any moment, and `adopt()` of
the next one finds what runs.
"""

from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.domain.vm import Accelerator, VmEndReason


@dataclass(frozen=True)
class Capabilities:
    """What an implementation can do, asked before, instead of failing after."""

    disk_hot_add: bool
    snapshot: bool


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
        id: 12 hex digits, unique on the host.
        kernel: ELF vmlinux booted by PVH (QEMU) or kernel-direct (Hyper-V).
        initrd: Uncompressed cpio newc.
        cmdline: Kernel command line; the implementation appends what its devices need.
        labels: Free strings kept in the run directory and given back by `adopt()`
            (the engine keeps the container's id there).
    """

    id: str
    vcpus: int
    memory_bytes: int
    kernel: Path
    initrd: Path
    cmdline: str
    disks: tuple[DiskSpec, ...]
    labels: dict[str, str]


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
    """

    cpu_ns: int
    resident_bytes: int


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
        """The serial console's bounded file; readable while the VM runs and after."""

    async def open_channel(self) -> tuple[StreamReader, StreamWriter]:
        """Connect the byte stream to the agent.

        One connection at a time; a later one is possible after the earlier was closed. Bytes in
        flight at a disconnect may be lost or torn on both sides: resynchronising is the caller's.

        Raises:
            Unavailable: The VM is gone, or somebody else holds the channel.
            DeadlineExceeded: No connection within the implementation's deadline.
        """

    async def attach_disk(self, disk: DiskSpec) -> None:
        """Hot-add a disk. The guest must wait until it appears by serial.

        Raises:
            Conflict: A disk with that serial is attached already.
            NotFound: The image file does not exist.
            Unavailable: The VM is gone.
        """

    async def detach_disk(self, serial: str) -> None:
        """Remove a disk; returns once the hypervisor has let the file go.

        Raises:
            NotFound: No such disk.
            Unavailable: The VM is gone.
        """

    async def stats(self) -> VmStats:
        """Sample CPU time and memory; costs about a millisecond.

        Raises:
            Unavailable: The VM is gone.
        """

    async def is_paused(self) -> bool:
        """Whether the hypervisor holds the VM (then silence is no fault)."""

    async def stop(self, reason: VmEndReason, *, grace_s: float) -> VmExit:
        """End the VM by the ladder: power button or quit, SIGTERM after `grace_s`, SIGKILL, reap.

        Idempotent; returns how it ended (the first reason wins when it was ending anyway).
        Afterwards no process, socket or mapping of it is left; the run directory stays until
        `discard()`.
        """

    async def wait(self) -> VmExit:
        """Wait, without a deadline, until the VM has ended; any number of waiters, also after."""

    async def discard(self) -> None:
        """Remove the run directory of an ended VM. Idempotent.

        Raises:
            Conflict: The VM still runs.
        """


class Hypervisor(Protocol):
    """A way to run VMs on this host."""

    @property
    def name(self) -> str:
        """"qemu", "hyper-v" or "fake"."""

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
            Conflict: A VM with that id exists.
            NotFound: Kernel, initrd or a disk image does not exist.
            Unavailable: The hypervisor refused; its own words are in the message.
            ResourceExhausted: The host is out of memory or disk.
        """

    async def adopt(self) -> list[Vm]:
        """Find the VMs of this data directory that still run, from earlier engines.

        Run directories whose VM has ended are returned too: their `wait()` answers at once with
        what the run directory tells, so that the engine can repair its records, then `discard()`.
        """

    async def close(self) -> None:
        """Let go of connections and files; VMs go on running."""
