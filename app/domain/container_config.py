"""What an operator asks for: a container's configuration, and how an image fills it."""

from dataclasses import dataclass, field

from app.core.errors import InvalidFields
from app.domain.container_options import (
    DEFAULT_LOG_DRIVER,
    NO_TUNING,
    CpuTuning,
    DeviceMapping,
    Echo,
    Ulimit,
)
from app.domain.image import Healthcheck, ImageConfig
from app.domain.restart import NO_RESTART, RestartPolicy
from app.domain.signals import signal_number

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ContainerConfig:
    """What the operator asked for; None and empty mean "as the image says".

    Attributes:
        image: Reference as given.
        memory_bytes: Hard limit of the container; 0: no limit of its own, the VM's default size.
        cpus: Share of CPU time in units of one CPU; 0: all of the VM's vCPUs.
        cpu_tuning: Docker's older options about CPUs; its quota is an alternative to `cpus`.
        pids_limit: Most processes and threads; 0: no limit.
        stop_timeout_s: Grace between stop signal and SIGKILL; None: the engine's setting.
        exposed_ports: `port/protocol` beyond the image's.
        healthcheck: None: the image's.
        memory_swap_bytes: Memory and swap together, as Docker counts; -1: no limit, 0: unset. A VM
            has no swap, so it limits nothing.
        shm_bytes: Size of /dev/shm; 0: 64 MiB.
        tmpfs: Mount options by path.
        groups: Supplementary groups, names or numbers.
        extra_hosts: Lines of /etc/hosts, `name:address`.
        privileged: Inside its VM: every capability and device, nothing masked, no seccomp filter.
        seccomp: Empty: the default profile; `unconfined`; or a profile as JSON text.
        masked_paths, read_only_paths: None: Docker's usual ones.
        network_mode: `default`, `bridge` and `none` all give no network card in this release.
        echo: What a client of the Docker API gave and gets back, with no effect here.
    """

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    memory_bytes: int = 0
    cpus: float = 0.0
    cpu_tuning: CpuTuning = NO_TUNING
    pids_limit: int = 0
    restart_policy: RestartPolicy = NO_RESTART
    auto_remove: bool = False
    init: bool = False
    read_only_root: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    exposed_ports: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    memory_reservation_bytes: int = 0
    memory_swap_bytes: int = 0
    oom_score_adj: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int = 0
    tmpfs: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    devices: tuple[DeviceMapping, ...] = ()
    groups: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    privileged: bool = False
    seccomp: str = ""
    security_options: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    read_only_paths: tuple[str, ...] | None = None
    log_driver: str = DEFAULT_LOG_DRIVER
    log_options: dict[str, str] = field(default_factory=dict)
    network_mode: str = "default"
    echo: Echo = field(default_factory=dict)

    @property
    def cpu_limit(self) -> float:
        """CPUs that it may use, however that was said; 0: no limit."""
        return self.cpus or self.cpu_tuning.cpus


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
    entrypoint, command = merge_command(config, image)
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


def merge_command(
    config: ContainerConfig, image: ImageConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entrypoint and command: the operator's, or else the image's."""
    if config.entrypoint is not None:
        return config.entrypoint, config.command or ()
    return image.entrypoint, image.cmd if config.command is None else config.command


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
