"""What the agent is told of a container: the one place where a start is described to a guest.

The pool's throw-away container is described here too, so that what it warms up is what containers
use later.
"""

from app.domain.container_config import ContainerConfig, ProcessPlan
from app.domain.sizing import VmSize
from app.guest.agent_types import ContainerSpec, GuestFile, Limits, ProcessSpec
from app.guest.capabilities import capability_mask, capability_names
from app.guest.seccomp import default_program

SCRATCH_SERIAL = "scratch"
CPU_PERIOD_US = 100_000
SHM_BYTES = 64 * 1024 * 1024  # Docker's default
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


def container_spec(
    config: ContainerConfig,
    *,
    container_id: str,
    hostname: str,
    plan: ProcessPlan,
    size: VmSize,
    layer_count: int,
    spill_bytes: int,
    output_stream: int,
    stdin_stream: int,
) -> ContainerSpec:
    """Describe a container.

    Args:
        config: As asked for.
        container_id: Names it in the guest.
        hostname: Its host name.
        plan: Its first process.
        size: The VM, and its limits in there.
        layer_count: Of its image, whose disks have the serials of `layer_serials`.
        spill_bytes: Ring on its scratch disk for output nobody has acknowledged.
        output_stream: Id of the output stream.
        stdin_stream: Id of the input stream, if it has one.
    """
    names = capability_names(config.cap_add, config.cap_drop)
    quota = size.cpu_quota
    return ContainerSpec(
        container_id=container_id,
        hostname=hostname,
        layers=layer_serials(layer_count),
        scratch=SCRATCH_SERIAL,
        spill_bytes=spill_bytes,
        read_only_root=config.read_only_root,
        init=config.init,
        limits=Limits(
            memory_max_bytes=size.container_limit_bytes,
            memory_swap_max_bytes=0,
            cpu_quota_us=None if quota is None else int(quota * CPU_PERIOD_US),
            cpu_period_us=None if quota is None else CPU_PERIOD_US,
            pids_max=config.pids_limit or None,
        ),
        seccomp=default_program(names),
        masked_paths=MASKED_PATHS,
        read_only_paths=READ_ONLY_PATHS,
        shm_bytes=SHM_BYTES,
        files=_network_files(hostname),
        process=ProcessSpec(
            args=plan.args,
            env=plan.env,
            cwd=plan.working_dir,
            user=plan.user,
            tty=config.tty,
            stdin_stream=stdin_stream if config.stdin_open else 0,
            output_stream=output_stream,
            capabilities=capability_mask(names),
            no_new_privileges=config.no_new_privileges,
        ),
    )


def layer_serials(count: int) -> tuple[str, ...]:
    """Serials of so many layers' disks."""
    return tuple(f"layer-{position}" for position in range(count))


def _network_files(hostname: str) -> tuple[GuestFile, ...]:
    """What Docker writes into a container without a network."""
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    return (
        GuestFile("/etc/hostname", f"{hostname}\n".encode(), 0o644),
        GuestFile("/etc/hosts", hosts.encode(), 0o644),
        GuestFile("/etc/resolv.conf", b"", 0o644),
    )
