"""What REST takes and gives. Field names are Docker's words in snake case, units in the names."""

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.health import HealthStatus
from app.domain.restart import parse_restart_policy
from app.services.stats import ContainerSample

LARGEST_NUMBER = 2**53 - 1  # what every JSON reader keeps exactly

ByteCount = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Text = Annotated[str, Field(max_length=4096)]
Words = Annotated[list[Annotated[str, Field(max_length=131_072)]], Field(max_length=4096)]

CONTAINER_EXAMPLE: dict[str, JsonValue] = {
    "image": "busybox:latest",
    "name": "ticker",
    "command": ["sh", "-c", "i=0; while :; do echo tick $i; i=$((i+1)); sleep 1; done"],
    "memory_bytes": 134_217_728,
    "restart_policy": "on-failure:3",
}


def moment(time_ns: int | None) -> datetime | None:
    """Nanoseconds since the epoch as a UTC time; the nanoseconds themselves go beside it."""
    return None if time_ns is None else datetime.fromtimestamp(time_ns / 1e9, UTC)


class ContainerCreate(BaseModel):
    """A container to create. Empty and absent mean "as the image says"."""

    model_config = ConfigDict(json_schema_extra={"examples": [CONTAINER_EXAMPLE]}, extra="forbid")

    image: Text = Field(description="Reference or id of a local image.")
    name: str | None = Field(default=None, max_length=255, description="Drawn if absent.")
    command: Words | None = Field(default=None, description="Arguments after the entrypoint.")
    entrypoint: Words | None = Field(
        default=None, description="Replaces the image's; [] clears it."
    )
    env: Words = Field(default_factory=list, description="`NAME=value` each.")
    user: Text = Field(default="", description="`name|uid[:group|gid]`.")
    working_dir: Text = ""
    hostname: Text = ""
    tty: bool = False
    stdin_open: bool = Field(default=False, description="Keep standard input open.")
    labels: dict[str, str] = Field(default_factory=dict)
    stop_signal: Text = Field(default="", examples=["SIGTERM"])
    stop_timeout_s: int | None = Field(default=None, ge=0, le=86_400)
    memory_bytes: ByteCount = Field(default=0, description="Hard limit; 0: the VM's default size.")
    cpus: float = Field(default=0, ge=0, le=256, description="0: all vCPUs of the VM.")
    pids_limit: int = Field(default=0, ge=0, le=4_194_304, description="0: no limit.")
    restart_policy: Text = Field(
        default="no", description="no, always, unless-stopped, on-failure or on-failure:N."
    )
    auto_remove: bool = Field(default=False, description="Remove it once it has ended.")
    init: bool = Field(default=False, description="Reap orphans by an init as process 1.")
    read_only_root: bool = False
    cap_add: Words = Field(default_factory=list)
    cap_drop: Words = Field(default_factory=list)
    no_new_privileges: bool = False
    privileged: bool = Field(
        default=False, description="Inside its VM: every capability and device, nothing masked."
    )
    groups: Words = Field(default_factory=list, description="Supplementary groups.")
    shm_bytes: ByteCount = Field(default=0, description="Size of /dev/shm; 0: 64 MiB.")
    tmpfs: dict[str, str] = Field(default_factory=dict, description="Mount options by path.")
    sysctls: dict[str, str] = Field(default_factory=dict)
    extra_hosts: Words = Field(default_factory=list, description="`name:address` each.")

    def to_config(self) -> ContainerConfig:
        """As the services take it.

        Raises:
            InvalidFields: The restart policy is none that Docker knows.
        """
        return ContainerConfig(
            image=self.image,
            command=None if self.command is None else tuple(self.command),
            entrypoint=None if self.entrypoint is None else tuple(self.entrypoint),
            env=tuple(self.env),
            user=self.user,
            working_dir=self.working_dir,
            hostname=self.hostname,
            tty=self.tty,
            stdin_open=self.stdin_open,
            labels=self.labels,
            stop_signal=self.stop_signal,
            stop_timeout_s=self.stop_timeout_s,
            memory_bytes=self.memory_bytes,
            cpus=self.cpus,
            pids_limit=self.pids_limit,
            restart_policy=parse_restart_policy(self.restart_policy),
            auto_remove=self.auto_remove,
            init=self.init,
            read_only_root=self.read_only_root,
            cap_add=tuple(self.cap_add),
            cap_drop=tuple(self.cap_drop),
            no_new_privileges=self.no_new_privileges,
            privileged=self.privileged,
            groups=tuple(self.groups),
            shm_bytes=self.shm_bytes,
            tmpfs=self.tmpfs,
            sysctls=self.sysctls,
            extra_hosts=tuple(self.extra_hosts),
        )


class BootStageView(BaseModel):
    """One step of a start."""

    name: str
    duration_ms: float


class SampleView(BaseModel):
    """Numbers of a running container.

    `cpu_percent` 100 is one CPU busy; memory is the container's cgroup, page cache included in
    `memory_file_bytes`; `host_resident_bytes` is what the host pays for the VM (PSS),
    `host_template_bytes` of it the share of the template that VMs have in common, and
    `vmm_overhead_bytes` what it pays beyond what the guest uses (`guest_used_bytes`).
    """

    time: datetime
    cpu_percent: float
    memory_bytes: int
    memory_limit_bytes: int
    memory_anon_bytes: int
    memory_file_bytes: int
    pids: int
    io_read_bytes: int
    io_write_bytes: int
    guest_total_bytes: int
    guest_available_bytes: int
    guest_kernel_bytes: int
    guest_used_bytes: int
    host_resident_bytes: int | None
    host_template_bytes: int | None
    vmm_overhead_bytes: int | None

    @classmethod
    def of(cls, sample: ContainerSample) -> Self:
        """From a sample."""
        names = set(cls.model_fields) - {"time"}
        values = {name: getattr(sample, name) for name in names}
        return cls(time=datetime.fromtimestamp(sample.time_ns / 1e9, UTC), **values)


class ContainerView(BaseModel):
    """A container."""

    id: str
    name: str
    image: str
    image_id: str
    state: ContainerState
    exit_code: int
    oom_killed: bool
    error: str = Field(description="Plain reason of the last failure; empty if there was none.")
    pid: int | None = Field(description="The VM's process on the host.")
    vm_id: str | None
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    restart_count: int
    restart_policy: str
    unresponsive_since: datetime | None
    backpressure_since: datetime | None = Field(
        description="Since when writes of the container block because nobody takes its log."
    )
    boot_stages: list[BootStageView]
    command: list[str] | None
    entrypoint: list[str] | None
    env: list[str]
    user: str
    working_dir: str
    hostname: str
    tty: bool
    stdin_open: bool
    labels: dict[str, str]
    memory_bytes: int
    cpus: float
    pids_limit: int
    auto_remove: bool
    init: bool
    privileged: bool
    health: HealthStatus | None = Field(description="What its health check found, if it has one.")
    network: str = Field(default="none", description="This release gives no network card.")

    @classmethod
    def of(cls, container: Container) -> Self:
        """From the record."""
        config = container.config
        return cls(
            id=container.id,
            name=container.name,
            image=config.image,
            image_id=container.image_id,
            state=container.state,
            exit_code=container.exit_code,
            oom_killed=container.oom_killed,
            error=container.error,
            pid=container.pid,
            vm_id=container.vm_id,
            created=moment(container.created_at_ns),
            started=moment(container.started_at_ns),
            finished=moment(container.finished_at_ns),
            restart_count=container.restart_count,
            restart_policy=str(config.restart_policy),
            unresponsive_since=moment(container.unresponsive_since_ns),
            backpressure_since=moment(container.backpressure_since_ns),
            boot_stages=[
                BootStageView(name=stage.name, duration_ms=stage.duration_ms)
                for stage in container.boot_stages
            ],
            command=None if config.command is None else list(config.command),
            entrypoint=None if config.entrypoint is None else list(config.entrypoint),
            env=list(config.env),
            user=config.user,
            working_dir=config.working_dir,
            hostname=config.hostname or container.short_id,
            tty=config.tty,
            stdin_open=config.stdin_open,
            labels=config.labels,
            memory_bytes=config.memory_bytes,
            cpus=config.cpus,
            pids_limit=config.pids_limit,
            auto_remove=config.auto_remove,
            init=config.init,
            privileged=config.privileged,
            health=None if container.health is None else container.health.status,
        )


class Rename(BaseModel):
    """A new name."""

    name: str = Field(max_length=255, examples=["ticker-2"])


class ExecCreate(BaseModel):
    """A command to run in a running container."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"command": ["cat", "/etc/os-release"]}]}, extra="forbid"
    )

    command: Words
    env: Words = Field(default_factory=list)
    user: Text = ""
    working_dir: Text = ""
    tty: bool = False
