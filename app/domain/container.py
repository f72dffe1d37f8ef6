"""Containers: configuration, record, and the state machine as pure rules.

States and texts are Docker's (moby, daemon/container/state.go), with two of our own between them:
STARTING while a VM boots and STOPPING while one ends.
"""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.core.errors import AlreadyInState, Conflict, InvalidFields
from app.core.ids import short_id
from app.core.units import MIB
from app.domain.image import ImageConfig
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.domain.signals import signal_number
from app.domain.vm import BootStage

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMUM_MEMORY_BYTES = 6 * MIB  # as Docker
MAXIMUM_CPUS = 256
NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # moby, daemon/names
LABEL_LIMIT_BYTES = 64 * 1024
ENV_LIMIT_BYTES = 96 * 1024  # argv and env together fit a request of 256 KiB


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
class ContainerConfig:
    """What the operator asked for; None and empty mean "as the image says".

    Attributes:
        image: Reference as given.
        memory_bytes: Hard limit of the container; 0: no limit of its own, the VM's default size.
        cpus: Share of CPU time in units of one CPU; 0: all of the VM's vCPUs.
        pids_limit: Most processes and threads; 0: no limit.
        stop_timeout_s: Grace between stop signal and SIGKILL; None: the engine's setting.
    """

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    tty: bool = False
    stdin_open: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    memory_bytes: int = 0
    cpus: float = 0.0
    pids_limit: int = 0
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    init: bool = False
    read_only_root: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False


@dataclass(frozen=True)
class Container:
    """A container as the engine records it.

    Attributes:
        image_id: The image at creation; a later re-tag does not change it.
        exit_code: Of the last run; 0 before any.
        error: Plain reason of the last failure, empty if there was none.
        stopped_by_user: A stop or kill was asked for, so `unless-stopped` and the others rest.
        restart_count: Restarts by policy since the last start by hand.
        unresponsive_since_ns: Since when the guest has been silent, None if it is not.
        backpressure_since_ns: Since when the container's writes block because nobody takes its log.
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

    @property
    def short_id(self) -> str:
        """The 12 digits that people see."""
        return short_id(self.id)

    @property
    def is_live(self) -> bool:
        """Whether a VM of it exists or is about to."""
        return self.state in LIVE_STATES


@dataclass(frozen=True)
class ProcessPlan:
    """The first process, after the image's and the operator's wishes have been merged."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    working_dir: str
    stop_signal: int


def begin_start(container: Container) -> Container:
    """Claim a start.

    Raises:
        AlreadyInState: It runs.
        Conflict: It is in a state that can't be started from.
    """
    if container.state in {ContainerState.RUNNING, ContainerState.STARTING}:
        raise AlreadyInState(f"Container {container.name} is already {container.state}")
    if container.state is ContainerState.PAUSED:
        raise Conflict(
            f"Container {container.name} is paused",
            advice="Unpause it instead of starting it.",
        )
    if container.state not in STARTABLE_STATES | {ContainerState.RESTARTING}:
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
        unresponsive_since_ns=None,
        backpressure_since_ns=None,
        boot_stages=(),
    )


def started(
    container: Container, *, pid: int, at_ns: int, boot_stages: tuple[BootStage, ...]
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
        Conflict: It does not run, or is paused.
    """
    if container.state is ContainerState.PAUSED:
        raise Conflict(
            f"Container {container.name} is paused: can't {verb} it",
            advice="Unpause the container first.",
        )
    if container.state not in {ContainerState.RUNNING, ContainerState.STOPPING}:
        raise Conflict(
            f"Container {container.name} is not running: can't {verb} it",
            advice="Start the container first.",
        )


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
    """The run is over and its VM gone."""
    return replace(
        container,
        state=ContainerState.RESTARTING if restarting else ContainerState.EXITED,
        pid=None,
        vm_id=None,
        exit_code=exit_code,
        oom_killed=oom_killed,
        error=error,
        finished_at_ns=at_ns,
        unresponsive_since_ns=None,
        backpressure_since_ns=None,
        restart_count=container.restart_count + 1 if restarting else container.restart_count,
    )


def begin_remove(container: Container, *, force: bool) -> Container:
    """Claim the removal; with `force` the caller ends the run first.

    Raises:
        Conflict: It runs and `force` is not given (Docker's wording, which clients match on).
    """
    if container.state is ContainerState.REMOVING:
        raise Conflict(f"removal of container {container.id} is already in progress")
    if (container.is_live or container.state is ContainerState.RESTARTING) and not force:
        raise Conflict(
            f"cannot remove container {container.name!r}: container is {container.state}: "
            "stop the container before removing or force remove",
            advice="Stop it first, or remove it with force.",
        )
    return replace(container, state=ContainerState.REMOVING)


def plan_process(config: ContainerConfig, image: ImageConfig, *, hostname: str) -> ProcessPlan:
    """Merge image and operator as Docker does (moby, daemon/commit.go and oci_linux.go).

    Raises:
        InvalidFields: Neither names a command.
    """
    if config.entrypoint is not None:
        entrypoint, command = config.entrypoint, config.command or ()
    else:
        entrypoint = image.entrypoint
        command = image.cmd if config.command is None else config.command
    args = (*entrypoint, *command)
    if not args:
        raise InvalidFields({"command": f"No command: image {config.image} names none"})
    return ProcessPlan(
        args=args,
        env=_merge_env(config, image, hostname),
        user=config.user or image.user,
        working_dir=config.working_dir or image.working_dir or "/",
        stop_signal=signal_number(config.stop_signal or image.stop_signal or "SIGTERM"),
    )


def _merge_env(config: ContainerConfig, image: ImageConfig, hostname: str) -> tuple[str, ...]:
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        merged["TERM"] = "xterm"
    for entry in (*image.env, *config.env):
        name, separator, value = entry.partition("=")
        if separator:
            merged[name] = value
        else:
            merged.pop(name, None)  # "NAME" alone unsets, as `docker run -e NAME` of an unset one
    return tuple(f"{name}={value}" for name, value in merged.items())


def check_name(name: str) -> str:
    """Return the name without Docker's leading slash.

    Raises:
        InvalidFields: It has other characters than Docker allows.
    """
    name = name.removeprefix("/")
    if not NAME_PATTERN.fullmatch(name) or len(name) > 255:
        raise InvalidFields(
            {
                "name": f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are "
                "allowed, two characters or more"
            }
        )
    return name


def check_config(config: ContainerConfig) -> None:
    """Check every field on its own and together.

    Raises:
        InvalidFields: One text for each faulty field.
    """
    faults: dict[str, str] = {}
    for check in (_check_process, _check_limits, _check_policy):
        faults.update(check(config))
    if faults:
        raise InvalidFields(faults)


def _check_process(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    words = (*(config.command or ()), *(config.entrypoint or ()), *config.env)
    if any("\0" in word for word in (*words, config.user, config.working_dir, config.hostname)):
        faults["command"] = "Command, environment, user and directories can't contain NUL"
    if sum(len(word.encode()) + 1 for word in words) > ENV_LIMIT_BYTES:
        faults["env"] = "Command and environment together are longer than 96 KiB"
    for entry in config.env:
        if not entry.partition("=")[0]:
            faults["env"] = f"Environment entry {entry!r} has no name before '='"
    if config.working_dir and not config.working_dir.startswith("/"):
        faults["working_dir"] = f"Working directory {config.working_dir!r} is not absolute"
    if config.hostname and not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,62})", config.hostname):
        faults["hostname"] = f"Host name {config.hostname!r} is not a valid name of 1 to 63 letters"
    if config.stop_signal:
        try:
            signal_number(config.stop_signal)
        except InvalidFields:
            faults["stop_signal"] = f"Signal {config.stop_signal!r} is not known"
    if sum(len(k) + len(v) for k, v in config.labels.items()) > LABEL_LIMIT_BYTES:
        faults["labels"] = "Labels together are longer than 64 KiB"
    if any(not key for key in config.labels):
        faults["labels"] = "A label has no name"
    return faults


def _check_limits(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    if config.memory_bytes and config.memory_bytes < MINIMUM_MEMORY_BYTES:
        faults["memory_bytes"] = "Minimum memory limit allowed is 6 MiB"
    if not 0 <= config.cpus <= MAXIMUM_CPUS:
        faults["cpus"] = f"CPUs must lie between 0 (no limit) and {MAXIMUM_CPUS}"
    if config.pids_limit < 0:
        faults["pids_limit"] = "The process limit can't be negative"
    if config.stop_timeout_s is not None and config.stop_timeout_s < 0:
        faults["stop_timeout_s"] = "The stop timeout can't be negative"
    return faults


def _check_policy(config: ContainerConfig) -> dict[str, str]:
    policy = config.restart_policy
    if policy.maximum_retries < 0:
        return {"restart_policy": "The retry count can't be negative"}
    if policy.maximum_retries and policy.name is not RestartPolicyName.ON_FAILURE:
        return {"restart_policy": f"Policy {policy.name} takes no retry count"}
    if config.auto_remove and policy.name is not RestartPolicyName.NO:
        return {"auto_remove": "Can't remove the container at its end and restart it as well"}
    return {}
