"""What goes to the agent and comes back, as values; how each is written and read as fields."""

import logging
from dataclasses import dataclass, field
from typing import TypeAlias

from app.core.errors import CorruptData
from app.guest.events import GuestEvent
from app.guest.fields import Fields, FieldValue
from app.guest.hello import Stage
from app.guest.protocol import EventKind, Tag

_log = logging.getLogger(__name__)

RLIMIT_INFINITY = (1 << 64) - 1
NO_LIMIT = (1 << 64) - 1  # in `Limits`: lift a limit that was set

_DEVICE_BITS = {"r": 4, "w": 2, "m": 1}

FieldItems: TypeAlias = list[tuple[Tag, FieldValue]]


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A POSIX limit: `resource` by Linux number (RLIMIT_NOFILE is 7), RLIMIT_INFINITY for none."""

    resource: int
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to run.

    Attributes:
        args: argv, not empty; args[0] is looked up in PATH.
        env: `NAME=value` each.
        cwd: Absolute; made if missing.
        user: `name|uid[:group|gid]`; empty is root.
        groups: Supplementary groups, names or numbers.
        rows: Size of the tty; 0 leaves it to the program.
        stdin_stream: Id of the input stream; 0 is /dev/null.
        output_stream: Id of the output stream, unique for the life of the VM.
        capabilities: Bit mask by Linux number.
    """

    args: tuple[str, ...]
    output_stream: int
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin_stream: int = 0
    capabilities: int = 0
    no_new_privileges: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """cgroup v2 limits; None means no limit; in `update` it leaves one, and NO_LIMIT lifts it."""

    memory_max_bytes: int | None = None
    memory_swap_max_bytes: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_weight: int | None = None
    pids_max: int | None = None


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A tmpfs in the container; `options` as for mount(8)."""

    path: str
    options: str


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """A device of the guest for the container.

    Attributes:
        source: Its path in the guest.
        target: Its path in the container.
        permissions: Of `rwm`: read, write, make.
    """

    source: str
    target: str
    permissions: str


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file bind-mounted over the container's own, like /etc/hosts; `mode` are permission bits."""

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create.

    Attributes:
        layers: Serials of the layers' disks, lowest first.
        scratch: Serial of the scratch disk.
        spill_bytes: Ring on the scratch disk for output nobody has acknowledged; 0 for none.
        init: Run the agent's own init as the container's process 1.
        seccomp: Array of struct sock_filter; empty for none.
        shm_bytes: Size of /dev/shm.
        privileged: Every device, and /sys writable.
    """

    container_id: str
    hostname: str
    layers: tuple[str, ...]
    scratch: str
    process: ProcessSpec
    domainname: str = ""
    spill_bytes: int = 0
    read_only_root: bool = False
    init: bool = False
    limits: Limits = field(default_factory=Limits)
    seccomp: bytes = b""
    masked_paths: tuple[str, ...] = ()
    read_only_paths: tuple[str, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    shm_bytes: int = 64 * 1024 * 1024
    files: tuple[GuestFile, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    privileged: bool = False
    devices: tuple[GuestDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateResult:
    """What CREATE gives: the first process's pid in the guest, and how long each stage took."""

    pid: int
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class GuestStats:
    """A sample; numbers that the guest does not know are 0.

    Attributes:
        memory_bytes: The container's cgroup, page cache included.
        memory_limit_bytes: 0 when there is no limit.
        guest_kernel_bytes: What kernel and agent need of the guest's memory.
    """

    cpu_us: int
    cpu_user_us: int
    cpu_system_us: int
    memory_bytes: int
    memory_anon_bytes: int
    memory_file_bytes: int
    memory_limit_bytes: int
    pids: int
    io_read_bytes: int
    io_write_bytes: int
    oom_kills: int
    guest_memory_total_bytes: int
    guest_memory_available_bytes: int
    guest_cache_bytes: int
    guest_kernel_bytes: int
    scratch_used_bytes: int
    scratch_total_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A process has ended.

    Attributes:
        exit_code: Exit status, or 128 + signal.
        signal: The signal that ended it, or 0.
        oom_killed: The kernel killed a process of the container for memory.
        time_ns: Guest clock, nanoseconds since the epoch.
    """

    number: int
    container_id: str
    process_id: str
    exit_code: int
    signal: int
    oom_killed: bool
    time_ns: int


@dataclass(frozen=True, slots=True)
class OomEvent:
    """The container ran out of memory; `count` kills so far."""

    number: int
    container_id: str
    count: int


@dataclass(frozen=True, slots=True)
class BackpressureEvent:
    """The container's writes block, or no longer do, because nobody acknowledges its output."""

    number: int
    container_id: str
    is_blocked: bool
    time_ns: int


AgentEvent: TypeAlias = ProcessExited | OomEvent | BackpressureEvent


def process_fields(spec: ProcessSpec) -> FieldItems:
    """Write a PROCESS_SPEC."""
    items: FieldItems = [(Tag.ARG, arg) for arg in spec.args]
    items += [(Tag.ENV, entry) for entry in spec.env]
    items += [(Tag.CWD, spec.cwd), (Tag.USER, spec.user)]
    items += [(Tag.GROUP, group) for group in spec.groups]
    items += [
        (Tag.TTY, spec.tty),
        (Tag.ROWS, spec.rows),
        (Tag.COLUMNS, spec.columns),
        (Tag.STDIN_STREAM, spec.stdin_stream),
        (Tag.OUTPUT_STREAM, spec.output_stream),
        (Tag.CAPABILITIES, spec.capabilities),
        (Tag.NO_NEW_PRIVILEGES, spec.no_new_privileges),
        (Tag.OOM_SCORE_ADJ, spec.oom_score_adj),
    ]
    for limit in spec.rlimits:
        group: FieldItems = [
            (Tag.RESOURCE, limit.resource),
            (Tag.SOFT, limit.soft),
            (Tag.HARD, limit.hard),
        ]
        items.append((Tag.RLIMIT, group))
    return items


def limit_fields(limits: Limits) -> FieldItems:
    """Write the limits that are set."""
    numbers = (
        (Tag.MEMORY_MAX_BYTES, limits.memory_max_bytes),
        (Tag.MEMORY_SWAP_MAX_BYTES, limits.memory_swap_max_bytes),
        (Tag.CPU_QUOTA_US, limits.cpu_quota_us),
        (Tag.CPU_PERIOD_US, limits.cpu_period_us),
        (Tag.CPU_WEIGHT, limits.cpu_weight),
        (Tag.PIDS_MAX, limits.pids_max),
    )
    return [(tag, number) for tag, number in numbers if number is not None]


def container_fields(spec: ContainerSpec) -> FieldItems:
    """Write the fields of CREATE."""
    items: FieldItems = [
        (Tag.CONTAINER, spec.container_id),
        (Tag.HOSTNAME, spec.hostname),
        (Tag.DOMAINNAME, spec.domainname),
    ]
    items += [(Tag.LAYER, serial) for serial in spec.layers]
    items += [
        (Tag.SCRATCH, spec.scratch),
        (Tag.SPILL_BYTES, spec.spill_bytes),
        (Tag.READ_ONLY_ROOT, spec.read_only_root),
        (Tag.INIT, spec.init),
        (Tag.PRIVILEGED, spec.privileged),
        *limit_fields(spec.limits),
        (Tag.SHM_BYTES, spec.shm_bytes),
    ]
    if spec.seccomp:
        items.append((Tag.SECCOMP, spec.seccomp))
    items += [(Tag.MASKED_PATH, path) for path in spec.masked_paths]
    items += [(Tag.READ_ONLY_PATH, path) for path in spec.read_only_paths]
    groups: list[tuple[Tag, FieldItems]] = []
    groups += [
        (Tag.TMPFS, [(Tag.PATH, mount.path), (Tag.OPTIONS, mount.options)]) for mount in spec.tmpfs
    ]
    groups += [
        (Tag.FILE, [(Tag.PATH, file.path), (Tag.DATA, file.data), (Tag.MODE, file.mode)])
        for file in spec.files
    ]
    groups += [(Tag.SYSCTL, [(Tag.NAME, name), (Tag.VALUE, value)]) for name, value in spec.sysctls]
    groups += [
        (
            Tag.DEVICE,
            [
                (Tag.NAME, device.source),
                (Tag.PATH, device.target),
                (Tag.MODE, sum(_DEVICE_BITS[letter] for letter in set(device.permissions))),
            ],
        )
        for device in spec.devices
    ]
    items += groups
    items.append((Tag.PROCESS_SPEC, process_fields(spec.process)))
    return items


def decode_stats(fields: Fields) -> GuestStats:
    """Read the answer to STATS."""
    return GuestStats(
        cpu_us=fields.number(Tag.STAT_CPU_US, 0),
        cpu_user_us=fields.number(Tag.STAT_CPU_USER_US, 0),
        cpu_system_us=fields.number(Tag.STAT_CPU_SYSTEM_US, 0),
        memory_bytes=fields.number(Tag.STAT_MEMORY_BYTES, 0),
        memory_anon_bytes=fields.number(Tag.STAT_MEMORY_ANON_BYTES, 0),
        memory_file_bytes=fields.number(Tag.STAT_MEMORY_FILE_BYTES, 0),
        memory_limit_bytes=fields.number(Tag.STAT_MEMORY_LIMIT_BYTES, 0),
        pids=fields.number(Tag.STAT_PIDS, 0),
        io_read_bytes=fields.number(Tag.STAT_IO_READ_BYTES, 0),
        io_write_bytes=fields.number(Tag.STAT_IO_WRITE_BYTES, 0),
        oom_kills=fields.number(Tag.STAT_OOM_KILLS, 0),
        guest_memory_total_bytes=fields.number(Tag.STAT_GUEST_MEMORY_TOTAL_BYTES, 0),
        guest_memory_available_bytes=fields.number(Tag.STAT_GUEST_MEMORY_AVAILABLE_BYTES, 0),
        guest_cache_bytes=fields.number(Tag.STAT_GUEST_CACHE_BYTES, 0),
        guest_kernel_bytes=fields.number(Tag.STAT_GUEST_KERNEL_BYTES, 0),
        scratch_used_bytes=fields.number(Tag.STAT_SCRATCH_USED_BYTES, 0),
        scratch_total_bytes=fields.number(Tag.STAT_SCRATCH_TOTAL_BYTES, 0),
    )


def decode_event(event: GuestEvent) -> AgentEvent | None:
    """Read an event; None for a kind we don't know or one that lacks something (logged)."""
    fields, number = event.fields, event.number
    try:
        match event.kind:
            case EventKind.PROCESS_EXITED:
                return ProcessExited(
                    number=number,
                    container_id=fields.text(Tag.CONTAINER),
                    process_id=fields.text(Tag.PROCESS_ID),
                    exit_code=fields.number(Tag.EXIT_CODE),
                    signal=fields.number(Tag.SIGNAL, 0),
                    oom_killed=fields.flag(Tag.OOM_KILLED),
                    time_ns=fields.number(Tag.TIME_NS),
                )
            case EventKind.OOM:
                return OomEvent(number, fields.text(Tag.CONTAINER), fields.number(Tag.COUNT))
            case EventKind.BACKPRESSURE:
                return BackpressureEvent(
                    number,
                    fields.text(Tag.CONTAINER),
                    fields.flag(Tag.BLOCKED),
                    fields.number(Tag.TIME_NS),
                )
            case _:
                _log.info("Event %d of the guest is of unknown kind %d", number, event.kind)
                return None
    except CorruptData as exc:
        _log.warning("Event %d of the guest is not readable: %s", number, exc)
        return None
