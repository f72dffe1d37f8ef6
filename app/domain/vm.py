"""What a micro-VM is to the rest of the product."""

from dataclasses import dataclass, field
from enum import StrEnum


class VmState(StrEnum):
    """Life of a VM, a separate axis from the state of the container in it."""

    BOOTING = "booting"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"  # no byte from the agent for UNRESPONSIVE_AFTER_S
    STOPPING = "stopping"
    OFF = "off"


class StartPath(StrEnum):
    """How a container came to its VM."""

    POOL = "pool"  # a copy of a template that was warmed up and waited
    CLONE = "clone"  # a copy of a template
    BOOT = "boot"  # a kernel booted for it


UNRESPONSIVE_AFTER_S = 4.0  # shown within 5 s
SILENT_KILL_AFTER_S = 60.0


class VmEndReason(StrEnum):
    """Why a VM is no longer there."""

    POWERED_OFF = "powered-off"  # the guest switched itself off after we asked
    PANIC = "panic"  # guest kernel panic (QMP SHUTDOWN guest-reset/guest-panic)
    KILLED = "killed"  # the hypervisor process was killed by somebody else
    OUT_OF_HOST_MEMORY = "out-of-host-memory"
    SILENT = "silent"  # we killed it after SILENT_KILL_AFTER_S
    STOPPED = "stopped"  # we stopped it
    FAILED_TO_BOOT = "failed-to-boot"
    FAILED = "failed"  # the hypervisor ended by itself with an error


@dataclass(frozen=True)
class BootStage:
    """One step of a start, in the order it happened."""

    name: str
    duration_ms: float


@dataclass(frozen=True)
class Accelerator:
    """What really runs guest instructions on this host.

    Attributes:
        name: "kvm" or "tcg".
        reason: Plain sentence that says why, for the UI and doctor.
        boot_ms: Time from process start to the agent's first word in the probe, if one ran.
    """

    name: str
    reason: str
    boot_ms: float | None = None


@dataclass(frozen=True)
class VmRecord:
    """A VM as the engine knows it."""

    id: str
    container_id: str
    state: VmState
    vcpus: int
    memory_bytes: int
    hypervisor: str
    accelerator: str
    pid: int | None
    started_at_ns: int
    boot_stages: tuple[BootStage, ...] = field(default=())
    start_path: StartPath | None = None  # None: not known, the VM was adopted
    last_heard_at_ns: int | None = None
    host_resident_bytes: int | None = None  # PSS
    host_template_bytes: int | None = None  # of it: its share of the template's memory
