"""A container's configuration in the agent's terms.

The pool's throw-away container is described here too, so that what it warms up is what containers
use later.
"""

import math

from app.core.errors import InvalidArgument, InvalidFields
from app.domain.container_config import ContainerConfig, ProcessPlan
from app.domain.container_options import DEFAULT_CPU_PERIOD_US, UNLIMITED
from app.domain.sizing import VmSize
from app.guest.agent_types import (
    NO_LIMIT,
    RLIMIT_INFINITY,
    ContainerSpec,
    GuestDevice,
    GuestFile,
    Limits,
    ProcessSpec,
    Rlimit,
    Tmpfs,
)
from app.guest.capabilities import ALL_CAPABILITIES, capability_mask, capability_names
from app.guest.seccomp import compile_profile, default_program, parse_profile

SCRATCH_SERIAL = "scratch"
UNCONFINED = "unconfined"
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
DEFAULT_TMPFS_OPTIONS = "noexec,nosuid,nodev"  # moby, daemon/oci_linux.go
# Docker's defaults (moby, oci/defaults.go): what a container must not see or change in /proc, /sys.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def masked_paths(config: ContainerConfig) -> tuple[str, ...]:
    """What the container does not see."""
    if config.privileged:
        return ()
    return MASKED_PATHS if config.masked_paths is None else config.masked_paths


def read_only_paths(config: ContainerConfig) -> tuple[str, ...]:
    """What the container sees and can't change."""
    if config.privileged:
        return ()
    return READ_ONLY_PATHS if config.read_only_paths is None else config.read_only_paths


def capabilities(config: ContainerConfig) -> frozenset[str]:
    """What its root may do.

    Raises:
        InvalidArgument: A capability is unknown.
    """
    if config.privileged:
        return ALL_CAPABILITIES
    return capability_names(config.cap_add, config.cap_drop)


def seccomp_program(config: ContainerConfig) -> bytes:
    """The filter for its processes; empty for none.

    Raises:
        InvalidArgument, Unsupported: The profile can't be used.
    """
    if config.seccomp == UNCONFINED or (config.privileged and not config.seccomp):
        return b""
    if not config.seccomp:
        return default_program(capabilities(config))
    return compile_profile(parse_profile(config.seccomp.encode()), capabilities(config))


def check_security(config: ContainerConfig) -> None:
    """Refuse names of capabilities and profiles that a start could not use.

    Raises:
        InvalidFields: One of them is faulty.
    """
    try:
        seccomp_program(config)
    except InvalidArgument as error:
        raise InvalidFields({error.field or "seccomp": error.message}) from error


def layer_serials(count: int) -> tuple[str, ...]:
    """Serials of an image's disks in every VM, lowest layer first."""
    return tuple(f"layer-{position}" for position in range(count))


def describe_container(
    config: ContainerConfig,
    plan: ProcessPlan,
    *,
    container_id: str,
    hostname: str,
    layer_count: int,
    spill_bytes: int,
    size: VmSize,
    output_stream: int,
    stdin_stream: int,
) -> ContainerSpec:
    """All that the guest needs to make the container.

    Args:
        config: As asked for.
        plan: Its first process.
        container_id: Names it in the guest.
        hostname: Its host name.
        layer_count: Of its image, whose disks have the serials of `layer_serials`.
        spill_bytes: Ring on its scratch disk for output nobody has acknowledged.
        size: The VM, and its limits in there.
        output_stream: Id of the output stream.
        stdin_stream: Id of the input stream, if it has one.

    Raises:
        InvalidArgument, Unsupported: A capability or the seccomp profile can't be used.
    """
    return ContainerSpec(
        container_id=container_id,
        hostname=hostname,
        domainname=config.domainname,
        layers=layer_serials(layer_count),
        scratch=SCRATCH_SERIAL,
        spill_bytes=spill_bytes,
        read_only_root=config.read_only_root,
        init=config.init,
        limits=limits_of(config, size),
        seccomp=seccomp_program(config),
        masked_paths=masked_paths(config),
        read_only_paths=read_only_paths(config),
        tmpfs=tuple(
            Tmpfs(path, ",".join(filter(None, (DEFAULT_TMPFS_OPTIONS, options))))
            for path, options in config.tmpfs.items()
        ),
        shm_bytes=config.shm_bytes or DEFAULT_SHM_BYTES,
        files=_network_files(config, hostname),
        sysctls=tuple(config.sysctls.items()),
        privileged=config.privileged,
        devices=tuple(
            GuestDevice(each.source, each.target, each.permissions) for each in config.devices
        ),
        process=_process_of(config, plan, output_stream=output_stream, stdin_stream=stdin_stream),
    )


def _process_of(
    config: ContainerConfig, plan: ProcessPlan, *, output_stream: int, stdin_stream: int
) -> ProcessSpec:
    return ProcessSpec(
        args=plan.args,
        env=plan.env,
        cwd=plan.working_dir,
        user=plan.user,
        groups=config.groups,
        tty=config.tty,
        stdin_stream=stdin_stream if config.stdin_open else 0,
        output_stream=output_stream,
        capabilities=capability_mask(capabilities(config)),
        no_new_privileges=config.no_new_privileges,
        rlimits=rlimits_of(config),
        oom_score_adj=config.oom_score_adj,
    )


def limits_of(config: ContainerConfig, size: VmSize) -> Limits:
    """Limits of its cgroup; None where it has none."""
    period_us = config.cpu_tuning.period_us or DEFAULT_CPU_PERIOD_US
    quota = size.cpu_quota
    return Limits(
        memory_max_bytes=size.container_limit_bytes,
        memory_swap_max_bytes=0,
        cpu_quota_us=None if quota is None else math.ceil(quota * period_us),
        cpu_period_us=None if quota is None else period_us,
        cpu_weight=config.cpu_tuning.weight,
        pids_max=config.pids_limit or None,
    )


def changed_limits(config: ContainerConfig, size: VmSize) -> Limits:
    """The same for a container that runs: what is no longer limited is lifted."""
    limits = limits_of(config, size)
    return Limits(
        memory_max_bytes=limits.memory_max_bytes,
        cpu_quota_us=NO_LIMIT if limits.cpu_quota_us is None else limits.cpu_quota_us,
        cpu_period_us=limits.cpu_period_us,
        cpu_weight=limits.cpu_weight,
        pids_max=NO_LIMIT if limits.pids_max is None else limits.pids_max,
    )


def rlimits_of(config: ContainerConfig) -> tuple[Rlimit, ...]:
    """Its POSIX limits by Linux numbers."""
    return tuple(
        Rlimit(each.resource, _bound(each.soft), _bound(each.hard)) for each in config.ulimits
    )


def _bound(limit: int) -> int:
    return RLIMIT_INFINITY if limit == UNLIMITED else limit


def _network_files(config: ContainerConfig, hostname: str) -> tuple[GuestFile, ...]:
    """What Docker writes into a container without a network."""
    return (
        GuestFile("/etc/hostname", f"{hostname}\n".encode(), 0o644),
        GuestFile("/etc/hosts", _hosts(config).encode(), 0o644),
        GuestFile("/etc/resolv.conf", _resolver(config).encode(), 0o644),
    )


def _hosts(config: ContainerConfig) -> str:
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for entry in config.extra_hosts:
        name, _, address = entry.partition(":")
        lines.append(f"{address.strip('[]')}\t{name}")
    return "".join(f"{line}\n" for line in lines)


def _resolver(config: ContainerConfig) -> str:
    lines = [f"nameserver {server}" for server in config.dns_servers]
    if config.dns_search:
        lines.append(f"search {' '.join(config.dns_search)}")
    if config.dns_options:
        lines.append(f"options {' '.join(config.dns_options)}")
    return "".join(f"{line}\n" for line in lines)
