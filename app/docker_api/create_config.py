"""From Docker's body of a create or update to our configuration."""

from app.core.errors import InvalidArgument, Unsupported
from app.docker_api.create_body import (
    CreateBody,
    HealthcheckBody,
    HostConfigBody,
    MountBody,
    RestartPolicyBody,
)
from app.docker_api.refusals import PLAIN_NETWORKS, check_supported
from app.domain.container_config import ContainerConfig
from app.domain.container_options import (
    DEFAULT_LOG_DRIVER,
    CpuTuning,
    DeviceMapping,
    Echo,
    Ulimit,
)
from app.domain.image import Healthcheck
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.services.guest_spec import UNCONFINED

NANOS_PER_CPU = 1_000_000_000
NO_NETWORK = "none"
# Fields that mean nothing here and come back in inspect as they were given.
ECHOED = (
    ("container_id_file", "ContainerIDFile"),
    ("volume_driver", "VolumeDriver"),
    ("console_size", "ConsoleSize"),
    ("cgroupns_mode", "CgroupnsMode"),
    ("ipc_mode", "IpcMode"),
    ("cgroup", "Cgroup"),
    ("cgroup_parent", "CgroupParent"),
    ("pid_mode", "PidMode"),
    ("uts_mode", "UTSMode"),
    ("userns_mode", "UsernsMode"),
    ("runtime", "Runtime"),
    ("isolation", "Isolation"),
    ("publish_all_ports", "PublishAllPorts"),
    ("mounts", "Mounts"),
    ("annotations", "Annotations"),
    ("init", "Init"),
    ("pids_limit", "PidsLimit"),
)
_ECHOED_CONFIG = (
    ("attach_stdin", "AttachStdin"),
    ("attach_stdout", "AttachStdout"),
    ("attach_stderr", "AttachStderr"),
)


def container_config(body: CreateBody) -> ContainerConfig:
    """The configuration a body asks for.

    Raises:
        InvalidArgument, Unsupported: It asks for what there is not, in Docker's words if any.
    """
    check_supported(body)
    host = body.host_config
    security = _SecurityOptions(host)
    return ContainerConfig(
        image=body.image,
        command=None if body.cmd is None else tuple(body.cmd) or None,
        entrypoint=_entrypoint(body.entrypoint),
        env=tuple(body.env),
        user=body.user,
        working_dir=body.working_dir,
        hostname=body.hostname,
        domainname=body.domainname,
        tty=body.tty,
        stdin_open=body.open_stdin,
        stdin_once=body.stdin_once,
        labels=body.labels,
        stop_signal=body.stop_signal,
        stop_timeout_s=body.stop_timeout,
        memory_bytes=host.memory or 0,
        memory_swap_bytes=host.memory_swap or 0,
        memory_reservation_bytes=host.memory_reservation or 0,
        cpus=(host.nano_cpus or 0) / NANOS_PER_CPU,
        cpu_tuning=cpu_tuning(host, CpuTuning()),
        pids_limit=max(host.pids_limit or 0, 0),
        restart_policy=restart_policy(host.restart_policy),
        auto_remove=host.auto_remove,
        init=bool(host.init),
        read_only_root=host.readonly_rootfs,
        cap_add=tuple(host.cap_add),
        cap_drop=tuple(host.cap_drop),
        no_new_privileges=security.no_new_privileges,
        exposed_ports=tuple(_port(port) for port in body.exposed_ports),
        healthcheck=_healthcheck(body.healthcheck),
        oom_score_adj=host.oom_score_adj,
        ulimits=tuple(Ulimit(each.name, each.soft, each.hard) for each in host.ulimits),
        shm_bytes=host.shm_size,
        tmpfs={**host.tmpfs, **dict(_tmpfs(mount) for mount in host.mounts)},
        sysctls=host.sysctls,
        devices=tuple(
            DeviceMapping(
                each.path_on_host,
                each.path_in_container or each.path_on_host,
                each.cgroup_permissions or "rwm",
            )
            for each in host.devices
        ),
        groups=tuple(str(group) for group in host.group_add),
        extra_hosts=tuple(host.extra_hosts),
        dns_servers=tuple(host.dns),
        dns_options=tuple(host.dns_options),
        dns_search=tuple(host.dns_search),
        privileged=host.privileged,
        seccomp=security.seccomp,
        security_options=tuple(host.security_opt),
        masked_paths=None if host.masked_paths is None else tuple(host.masked_paths),
        read_only_paths=None if host.readonly_paths is None else tuple(host.readonly_paths),
        log_driver=host.log_config.type or DEFAULT_LOG_DRIVER,
        log_options=host.log_config.config,
        network_mode=_network_mode(body),
        echo=_echo(body),
    )


def warnings_for(body: CreateBody) -> list[str]:
    """What is not as asked and does no harm; Docker's words where it has the same."""
    host = body.host_config
    warnings = list(resource_warnings(host))
    if _network_mode(body) != NO_NETWORK:
        warnings.append(
            "Containers have no network card in this release, only a loopback interface; choose "
            "--network none to say so."
        )
    return warnings


def resource_warnings(host: HostConfigBody) -> list[str]:
    """Limits that a virtual machine has no use for."""
    warnings = []
    if host.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    if host.memory_swappiness not in {None, -1}:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not "
            "mounted. Memory swappiness discarded."
        )
    if host.blkio_weight or host.blkio_weight_device:
        warnings.append("Your kernel does not support Block I/O weight. Weight discarded.")
    for values, what in (
        (host.blkio_device_read_bps, "BPS Block I/O read limit"),
        (host.blkio_device_write_bps, "BPS Block I/O write limit"),
        (host.blkio_device_read_iops, "IOPS Block read limit"),
        (host.blkio_device_write_iops, "IOPS Block I/O write limit"),
    ):
        if values:
            warnings.append(f"Your kernel does not support {what}.")
    return warnings


def restart_policy(body: RestartPolicyBody | None) -> RestartPolicy:
    """The policy a body names.

    Raises:
        InvalidArgument: Docker has no such policy.
    """
    if body is None:
        return RestartPolicy()
    name, retries = body.name or "no", body.maximum_retry_count
    if name not in tuple(RestartPolicyName):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != RestartPolicyName.ON_FAILURE:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    return RestartPolicy(RestartPolicyName(name), retries)


def cpu_tuning(host: HostConfigBody, before: CpuTuning) -> CpuTuning:
    """CPU options, those not given as before."""
    values = (
        (host.cpu_shares, before.shares),
        (host.cpu_period, before.period_us),
        (host.cpu_quota, before.quota_us),
    )
    shares, period_us, quota_us = (old if new is None else new for new, old in values)
    return CpuTuning(
        shares=shares,
        period_us=period_us,
        quota_us=quota_us,
        cpuset_cpus=before.cpuset_cpus if host.cpuset_cpus is None else host.cpuset_cpus,
        cpuset_mems=before.cpuset_mems if host.cpuset_mems is None else host.cpuset_mems,
    )


def _entrypoint(words: list[str] | None) -> tuple[str, ...] | None:
    """`[""]` is how a client takes the image's entrypoint away (moby, daemon/create.go)."""
    if not words:
        return None
    return () if words == [""] else tuple(words)


def _port(text: str) -> str:
    number, slash, protocol = text.partition("/")
    known = protocol.lower() in {"tcp", "udp", "sctp"} if slash else True
    if not number.replace("-", "", 1).isdecimal() or not known:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return f"{number}/{protocol.lower() or 'tcp'}"


def _healthcheck(body: HealthcheckBody | None) -> Healthcheck | None:
    if body is None:
        return None
    return Healthcheck(
        test=tuple(body.test),
        interval_ns=body.interval,
        timeout_ns=body.timeout,
        start_period_ns=body.start_period,
        start_interval_ns=body.start_interval,
        retries=body.retries,
    )


def _tmpfs(raw: dict[str, object]) -> tuple[str, str]:
    mount = MountBody.model_validate(raw)
    if not mount.target.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"tmpfs\": invalid mount path: '{mount.target}' mount "
            "path must be absolute"
        )
    options = []
    if mount.tmpfs_options.size_bytes:
        options.append(f"size={mount.tmpfs_options.size_bytes}")
    if mount.tmpfs_options.mode:
        options.append(f"mode={mount.tmpfs_options.mode:o}")
    if mount.read_only:
        options.append("ro")
    return mount.target, ",".join(options)


def _network_mode(body: CreateBody) -> str:
    if body.network_disabled:
        return NO_NETWORK
    mode = body.host_config.network_mode
    named = next(iter(body.networking_config.endpoints_config), "")
    if mode in {"", "default"}:
        mode = named or mode
    return "bridge" if mode in PLAIN_NETWORKS - {NO_NETWORK} else mode


def _echo(body: CreateBody) -> Echo:
    host = body.host_config
    defaults = HostConfigBody()
    host_config: Echo = {
        docker: getattr(host, field)
        for field, docker in ECHOED
        if getattr(host, field) != getattr(defaults, field)
    }
    config: Echo = {docker: True for field, docker in _ECHOED_CONFIG if getattr(body, field)}
    return {"HostConfig": host_config, "Config": config}


class _SecurityOptions:
    """HostConfig.SecurityOpt (moby, daemon/daemon_unix.go, parseSecurityOpt)."""

    def __init__(self, host: HostConfigBody) -> None:
        self.no_new_privileges = False
        self.seccomp = ""
        for option in host.security_opt:
            name, separator, value = option.partition("=")
            if not separator:
                name, _, value = option.partition(":")
            self._take(option, name, value)

    def _take(self, option: str, name: str, value: str) -> None:
        if name == "no-new-privileges" and value.lower() in {"", "true", "1", "false", "0"}:
            self.no_new_privileges = value.lower() not in {"false", "0"}
        elif name == "seccomp" and value:
            # The profile that is built in is also what `builtin` names.
            self.seccomp = "" if value in {"builtin", "default"} else value
        elif name == "apparmor" and value:
            if value != UNCONFINED:
                raise Unsupported(
                    f"AppArmor profile {value} refused: the virtual machine's kernel has none"
                )
        elif name != "label":  # SELinux labels: as Docker on a host without SELinux
            raise InvalidArgument(f"invalid --security-opt 2: {option!r}".replace("'", '"'))
