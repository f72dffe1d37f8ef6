"""Containers: the record, and the state machine as pure rules.

States and texts are Docker's (moby, daemon/container/state.go), with two of our own between them:
STARTING while a VM boots and STOPPING while one ends.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from app.core.errors import AlreadyInState, Conflict
from app.core.ids import short_id
from app.domain.container_config import ContainerConfig as ContainerConfig
from app.domain.health import Health
from app.domain.vm import BootStage


class NotRunning(Conflict):
    """The operation needs the container's process, and it has none.

    Attributes:
        container_id, container_name: Which.
    """

    def __init__(self, container: "Container", verb: str) -> None:
        super().__init__(
            f"Container {container.name} is not running: can't {verb} it",
            advice="Start the container first.",
        )
        self.container_id = container.id
        self.container_name = container.name


class IsPaused(Conflict):
    """The operation needs the container's process to run, and it is frozen.

    Attributes:
        container_id, container_name: Which.
    """

    def __init__(self, container: "Container", verb: str) -> None:
        super().__init__(
            f"Container {container.name} is paused: can't {verb} it",
            advice="Unpause the container first.",
        )
        self.container_id = container.id
        self.container_name = container.name


class ContainerState(StrEnum):
    """Life of a container, a separate axis from the state of its VM."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    RESTARTING = "restarting"  # ended; waits for its restart policy's back-off
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"  # removal failed; only another removal is possible


LIVE_STATES = frozenset(
    {
        ContainerState.STARTING,
        ContainerState.RUNNING,
        ContainerState.PAUSED,
        ContainerState.STOPPING,
    }
)
STARTABLE_STATES = frozenset({ContainerState.CREATED, ContainerState.EXITED})


@dataclass(frozen=True)
class Container:
    """A container as the engine records it.

    Attributes:
        image_id: The image at creation; a later re-tag does not change it.
        pid: The VM's process on the host while it runs.
        exit_code: Of the last run; 0 before any.
        error: Plain reason of the last failure, or of what is wrong now; empty if nothing is.
        stopped_by_user: A stop or kill was asked for, so `unless-stopped` and the others rest.
        restart_count: Restarts by policy since the last start by hand.
        unresponsive_since_ns: Since when the guest has been silent, None if it is not. This and
            the next two are of the moment: the engine lays them over the record, which has none.
        backpressure_since_ns: Since when the container's writes block because nobody takes its log.
        health: What its health check found; None if it has none, or has not run since the engine
            began.
    """

    id: str
    name: str
    image_id: str
    config: ContainerConfig
    created_at_ns: int
    state: ContainerState = ContainerState.CREATED
    pid: int | None = None
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at_ns: int | None = None
    finished_at_ns: int | None = None
    stopped_by_user: bool = False
    restart_count: int = 0
    vm_id: str | None = None
    boot_stages: tuple[BootStage, ...] = ()
    unresponsive_since_ns: int | None = None
    backpressure_since_ns: int | None = None
    health: Health | None = None

    @property
    def short_id(self) -> str:
        """The 12 digits that people see."""
        return short_id(self.id)

    @property
    def is_live(self) -> bool:
        """Whether its process runs, or is about to, in a VM."""
        return self.state in LIVE_STATES


def begin_start(container: Container, *, by_policy: bool = False) -> Container:
    """Claim a start.

    Args:
        container: The present record.
        by_policy: The restart policy asks, whose count of restarts then goes on.

    Raises:
        AlreadyInState: It runs, or its restart policy is about to start it.
        Conflict: It is in a state that can't be started from.
    """
    restarting = container.state is ContainerState.RESTARTING
    if container.state in {ContainerState.RUNNING, ContainerState.STARTING} or (
        restarting and not by_policy
    ):
        raise AlreadyInState(f"Container {container.name} is already {container.state}")
    if container.state is ContainerState.PAUSED:
        raise Conflict(
            f"Container {container.name} is paused",
            advice="Unpause it instead of starting it.",
        )
    if container.state not in STARTABLE_STATES and not restarting:
        raise Conflict(
            f"Container {container.name} is {container.state} and can't be started now",
            advice="Wait until that has finished, then start it.",
        )
    return replace(
        container,
        state=ContainerState.STARTING,
        error="",
        oom_killed=False,
        stopped_by_user=False,
        finished_at_ns=None,
        boot_stages=(),
        restart_count=container.restart_count if by_policy else 0,
    )


def started(
    container: Container, *, pid: int | None, at_ns: int, boot_stages: tuple[BootStage, ...]
) -> Container:
    """The first process runs."""
    return replace(
        container,
        state=ContainerState.RUNNING,
        pid=pid,
        exit_code=0,
        started_at_ns=at_ns,
        boot_stages=boot_stages,
    )


def begin_stop(container: Container) -> Container:
    """Claim a stop.

    Raises:
        AlreadyInState: It does not run.
        Conflict: It is being removed.
    """
    if container.state in {ContainerState.REMOVING, ContainerState.DEAD}:
        raise Conflict(f"Container {container.name} is being removed")
    if not container.is_live and container.state is not ContainerState.RESTARTING:
        raise AlreadyInState(f"Container {container.name} is not running")
    return replace(container, state=ContainerState.STOPPING, stopped_by_user=True)


def require_running(container: Container, verb: str) -> None:
    """Refuse an operation that needs the container's process.

    Raises:
        IsPaused, NotRunning: So it is.
    """
    if container.state is ContainerState.PAUSED:
        raise IsPaused(container, verb)
    if container.state not in {ContainerState.RUNNING, ContainerState.STOPPING}:
        raise NotRunning(container, verb)


def paused(container: Container) -> Container:
    """Record that its cgroup is frozen."""
    return replace(container, state=ContainerState.PAUSED)


def unpaused(container: Container) -> Container:
    """Record that its cgroup runs again."""
    return replace(container, state=ContainerState.RUNNING)


def require_paused(container: Container) -> None:
    """Refuse to unpause what is not paused.

    Raises:
        Conflict: It is not paused.
    """
    if container.state is not ContainerState.PAUSED:
        raise Conflict(f"Container {container.name} is not paused")


def ended(
    container: Container,
    *,
    exit_code: int,
    at_ns: int,
    oom_killed: bool = False,
    error: str = "",
    restarting: bool = False,
) -> Container:
    """The run is over: nothing of it is left but a VM that may still be on its way out."""
    return replace(
        container,
        state=ContainerState.RESTARTING if restarting else ContainerState.EXITED,
        pid=None,
        vm_id=None,
        exit_code=exit_code,
        oom_killed=oom_killed,
        error=error,
        finished_at_ns=at_ns,
        restart_count=container.restart_count + 1 if restarting else container.restart_count,
    )


def restart_given_up(container: Container) -> Container:
    """It was stopped while it waited for a restart; the record of its last run stands."""
    waited = container.state in {ContainerState.RESTARTING, ContainerState.STOPPING}
    return replace(container, state=ContainerState.EXITED) if waited else container


def start_failed(container: Container, *, exit_code: int, error: str, at_ns: int) -> Container:
    """The start came to nothing and left nothing; as in Docker it is again what it was before."""
    return replace(
        container,
        state=ContainerState.EXITED if container.started_at_ns else ContainerState.CREATED,
        pid=None,
        vm_id=None,
        exit_code=exit_code,
        error=error,
        finished_at_ns=at_ns if container.started_at_ns else None,
    )


def begin_remove(container: Container) -> Container:
    """Claim the removal.

    Raises:
        Conflict: It runs (Docker's wording, which clients match on), or is being removed.
    """
    if container.state is ContainerState.REMOVING:
        raise Conflict(f"removal of container {container.id} is already in progress")
    if container.is_live or container.state is ContainerState.RESTARTING:
        raise Conflict(
            f'cannot remove container "/{container.name}": container is {container.state}: '
            "stop the container before removing or force remove",
            advice="Stop it first, or remove it with force.",
        )
    return replace(container, state=ContainerState.REMOVING)
