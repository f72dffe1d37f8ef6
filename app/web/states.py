"""What a state looks like: shape, word, colour, in that order of weight.

Circles are containers, squares are VMs; the two axes never mix. Stopped is grey; red means that
somebody should look.
"""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.container import Container, ContainerState
from app.domain.vm import VmRecord, VmState


@dataclass(frozen=True)
class Mark:
    """A state as shown.

    Attributes:
        icon: Name of a symbol in static/icons.svg.
        tone: "run", "busy", "pause", "warn", "bad", or "" for idle: the class `st-<tone>`.
        text: The word beside the shape.
        is_vm: Whether it belongs to the VM's axis.
    """

    icon: str
    tone: str
    text: str
    is_vm: bool = False


class Group(StrEnum):
    """What the list filters by; every container is in exactly one."""

    RUNNING = "running"
    CHANGING = "changing"
    PAUSED = "paused"
    FAILED = "failed"
    STOPPED = "stopped"
    CREATED = "created"


GROUP_MARKS = {
    Group.RUNNING: Mark("run", "run", "Running"),
    Group.CHANGING: Mark("busy", "busy", "Changing"),
    Group.FAILED: Mark("bad", "bad", "Failed"),
    Group.STOPPED: Mark("stop", "", "Stopped"),
    Group.PAUSED: Mark("pause", "pause", "Paused"),
    Group.CREATED: Mark("new", "", "Created"),
}
_CHANGING = frozenset(
    {
        ContainerState.STARTING,
        ContainerState.STOPPING,
        ContainerState.RESTARTING,
        ContainerState.REMOVING,
    }
)
ABSENT_VM = Mark("voff", "", "VM off", is_vm=True)


def has_failed(container: Container) -> bool:
    """Whether it ended otherwise than its operator wanted."""
    if container.state is ContainerState.DEAD:
        return True
    if container.state is ContainerState.CREATED:
        return bool(container.error)  # its first start came to nothing
    if container.state is not ContainerState.EXITED:
        return False
    if container.oom_killed or container.error:
        return True
    return container.exit_code != 0 and not container.stopped_by_user


def group_of(container: Container) -> Group:
    """The filter group."""
    if has_failed(container):
        return Group.FAILED
    if container.state in _CHANGING:
        return Group.CHANGING
    return {
        ContainerState.RUNNING: Group.RUNNING,
        ContainerState.PAUSED: Group.PAUSED,
        ContainerState.CREATED: Group.CREATED,
    }.get(container.state, Group.STOPPED)


def container_mark(container: Container) -> Mark:
    """The container's own state."""
    match container.state:
        case ContainerState.RUNNING:
            return Mark("run", "run", "Running")
        case ContainerState.PAUSED:
            return Mark("pause", "pause", "Paused")
        case ContainerState.CREATED:
            return Mark("bad", "bad", "Not started") if container.error else _CREATED
        case ContainerState.DEAD:
            return Mark("bad", "bad", "Dead")
        case ContainerState.EXITED:
            return _exited_mark(container)
        case _:
            return Mark("busy", "busy", container.state.value.capitalize())


_CREATED = Mark("new", "", "Created")


def _exited_mark(container: Container) -> Mark:
    if container.oom_killed:
        return Mark("bad", "bad", f"OOM, {container.exit_code}")
    text = f"Exited {container.exit_code}"
    return Mark("bad", "bad", text) if has_failed(container) else Mark("stop", "", text)


def vm_mark(vm: VmRecord | None) -> Mark:
    """The VM's state; None when the container has none now."""
    if vm is None:
        return ABSENT_VM
    match vm.state:
        case VmState.BOOTING:
            return Mark("vbusy", "busy", "VM booting", is_vm=True)
        case VmState.READY:
            return Mark("vrun", "run", "VM ready", is_vm=True)
        case VmState.UNRESPONSIVE:
            return Mark("vlost", "warn", "Guest silent", is_vm=True)
        case VmState.STOPPING:
            return Mark("vbusy", "busy", "VM stopping", is_vm=True)
        case VmState.OFF:
            return ABSENT_VM


def start_path_text(path: str) -> str:
    """By which path a container came to its VM; empty if that is not known."""
    return {"pool": "from the pool", "clone": "by a clone", "boot": "by a boot"}.get(path, "")


def hypervisor_name(hypervisor: str) -> str:
    """As its makers write it."""
    return {"qemu": "QEMU", "hyperv": "Hyper-V"}.get(hypervisor.lower(), hypervisor)


def isolation_text(hypervisor: str, accelerator: str) -> str:
    """The badge: whose kernel, and what runs it."""
    suffix = {"kvm": "/KVM", "tcg": "/TCG, emulated"}.get(accelerator.lower(), "")
    return f"Own kernel · {hypervisor_name(hypervisor)}{suffix}"
