"""What an operator asks for: a container's configuration, its checks, and how an image fills it."""

import re
from dataclasses import dataclass, field

from app.core.errors import InvalidFields
from app.core.units import MIB
from app.domain.image import ImageConfig
from app.domain.restart import NO_RESTART, RestartPolicy, RestartPolicyName
from app.domain.signals import signal_number

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMUM_MEMORY_BYTES = 6 * MIB  # as Docker
MAXIMUM_CPUS = 256
NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # moby, daemon/names
LABEL_LIMIT_BYTES = 64 * 1024
ENV_LIMIT_BYTES = 96 * 1024  # argv and env together fit a request of 256 KiB


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
    restart_policy: RestartPolicy = NO_RESTART
    auto_remove: bool = False
    init: bool = False
    read_only_root: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False


@dataclass(frozen=True)
class ProcessPlan:
    """The first process, after the image's and the operator's wishes have been merged."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    working_dir: str
    stop_signal: int


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


def _check_words(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    words = (*(config.command or ()), *(config.entrypoint or ()), *config.env)
    if any("\0" in word for word in (*words, config.user, config.working_dir, config.hostname)):
        faults["command"] = "Command, environment, user and directories can't contain NUL"
    if sum(len(word.encode()) + 1 for word in words) > ENV_LIMIT_BYTES:
        faults["env"] = "Command and environment together are longer than 96 KiB"
    return faults


def _check_process(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    faults.update(_check_words(config))
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
