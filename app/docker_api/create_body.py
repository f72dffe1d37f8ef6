"""The body of POST /containers/create and what it is made of (moby, api/types/container)."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from app.docker_api.bodies import DockerModel


def _words(value: object) -> object:
    """Docker's strslice: a string is a list of one word."""
    return [value] if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(_words)]
Object = dict[str, Any]


class HealthcheckBody(DockerModel):
    """Durations in nanoseconds."""

    test: Words = Field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RestartPolicyBody(DockerModel):
    """When to start it again."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfigBody(DockerModel):
    """Where its output goes."""

    type: str = ""
    config: dict[str, str] = Field(default_factory=dict)


class UlimitBody(DockerModel):
    """A POSIX limit; -1 is none."""

    name: str
    soft: int = 0
    hard: int = 0


class DeviceBody(DockerModel):
    """A device; `path_on_host` is one of the VM."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class TmpfsOptionsBody(DockerModel):
    """Of a mount of type tmpfs."""

    size_bytes: int = 0
    mode: int = 0


class MountBody(DockerModel):
    """One of HostConfig.Mounts."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    tmpfs_options: TmpfsOptionsBody = TmpfsOptionsBody()


class ResourcesBody(DockerModel):
    """What can also be changed later, by POST /containers/{id}/update."""

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_shares: int | None = None
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: list[Object] = Field(default_factory=list)
    blkio_device_read_bps: list[Object] = Field(default_factory=list)
    blkio_device_write_bps: list[Object] = Field(default_factory=list)
    blkio_device_read_iops: list[Object] = Field(default_factory=list)
    blkio_device_write_iops: list[Object] = Field(default_factory=list)
    restart_policy: RestartPolicyBody | None = None


class HostConfigBody(ResourcesBody):
    """What concerns the host; in Docker's order as far as it matters."""

    binds: list[str] = Field(default_factory=list)
    mounts: list[Object] = Field(default_factory=list)
    volumes_from: list[str] = Field(default_factory=list)
    volume_driver: str = ""
    container_id_file: str = ""
    log_config: LogConfigBody = LogConfigBody()
    network_mode: str = ""
    port_bindings: dict[str, list[Object] | None] = Field(default_factory=dict)
    publish_all_ports: bool = False
    links: list[str] = Field(default_factory=list)
    auto_remove: bool = False
    console_size: list[int] = Field(default_factory=lambda: [0, 0])
    cap_add: Words = Field(default_factory=list)
    cap_drop: Words = Field(default_factory=list)
    cgroupns_mode: str = ""
    dns: list[str] = Field(default_factory=list)
    dns_options: list[str] = Field(default_factory=list)
    dns_search: list[str] = Field(default_factory=list)
    extra_hosts: list[str] = Field(default_factory=list)
    group_add: list[str | int] = Field(default_factory=list)
    ipc_mode: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = Field(default_factory=list)
    storage_opt: dict[str, str] = Field(default_factory=dict)
    tmpfs: dict[str, str] = Field(default_factory=dict)
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = Field(default_factory=dict)
    runtime: str = ""
    isolation: str = ""
    init: bool | None = None
    devices: list[DeviceBody] = Field(default_factory=list)
    device_cgroup_rules: list[str] = Field(default_factory=list)
    device_requests: list[Object] = Field(default_factory=list)
    ulimits: list[UlimitBody] = Field(default_factory=list)
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class EndpointBody(DockerModel):
    """A network to join."""

    links: list[str] = Field(default_factory=list)
    aliases: list[str] = Field(default_factory=list)
    mac_address: str = ""


class NetworkingConfigBody(DockerModel):
    """Networks by name."""

    endpoints_config: dict[str, EndpointBody | None] = Field(default_factory=dict)


class CreateBody(DockerModel):
    """The container to create; null and absent mean "as the image says"."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = Field(default_factory=dict)
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = Field(default_factory=list)
    cmd: Words | None = None
    healthcheck: HealthcheckBody | None = None
    image: str = ""
    volumes: dict[str, Any] = Field(default_factory=dict)
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    host_config: HostConfigBody = HostConfigBody()
    networking_config: NetworkingConfigBody = NetworkingConfigBody()
