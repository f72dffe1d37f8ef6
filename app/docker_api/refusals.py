"""What a client asks for and can't have: refused with a clear text, never left out in silence."""

from app.core.errors import InvalidArgument, Unsupported
from app.docker_api.create_body import CreateBody, HostConfigBody
from app.domain.container_options import DEFAULT_LOG_DRIVER

PLAIN_NETWORKS = frozenset({"", "default", "bridge", "none"})
LOG_DRIVERS = frozenset({"", DEFAULT_LOG_DRIVER, "local", "none"})
JSON_FILE_OPTIONS = frozenset(
    {"max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}
)
MODE_OPTIONS = frozenset({"mode", "max-buffer-size"})

_NO_NETWORK = "containers have no network card in this release"
_NO_VOLUMES = "volumes and bind mounts are not available in this release"
_OWN_KERNEL = (
    "a container runs in a virtual machine of its own and can't share namespaces with the host "
    "or with other containers"
)


def check_supported(body: CreateBody) -> None:
    """Refuse what would silently be missing.

    Raises:
        Unsupported: Something asked for is not available.
        InvalidArgument: Docker has no such thing either.
    """
    host = body.host_config
    _check_volumes(body)
    _check_network(body)
    _check_namespaces(host)
    _check_devices(host)
    _check_logging(host)
    if host.runtime not in {"", "runc"}:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in {"", "default"}:
        raise InvalidArgument(f"invalid isolation {host.isolation!r} on linux")
    if host.storage_opt:
        raise Unsupported("--storage-opt is not supported: scratch disks have one size for all")


def _check_volumes(body: CreateBody) -> None:
    host = body.host_config
    what = ""
    if host.binds:
        what = f"volume or bind {host.binds[0]}"
    elif body.volumes:
        what = f"anonymous volume {next(iter(body.volumes))}"
    elif host.volumes_from:
        what = f"volumes of {host.volumes_from[0]}"
    for mount in host.mounts:
        kind = str(mount.get("Type") or mount.get("type") or "")
        if kind != "tmpfs":
            what = f"mount of type {kind} at {mount.get('Target') or mount.get('target')}"
    if what:
        raise Unsupported(f"{what} refused: {_NO_VOLUMES}", advice="Use tmpfs, or docker cp.")


def _check_network(body: CreateBody) -> None:
    host = body.host_config
    published = [port for port, bindings in host.port_bindings.items() if bindings]
    if published or (host.publish_all_ports and body.exposed_ports):
        port = published[0] if published else next(iter(body.exposed_ports))
        raise Unsupported(f"publishing port {port} refused: {_NO_NETWORK}")
    if host.links:
        raise Unsupported(f"link {host.links[0]} refused: {_NO_NETWORK}")
    for entry in host.extra_hosts:
        if entry.endswith(":host-gateway"):
            raise Unsupported(f"extra host {entry} refused: {_NO_NETWORK}")
    if body.mac_address:
        raise Unsupported(f"MAC address {body.mac_address} refused: {_NO_NETWORK}")
    for name in (host.network_mode, *body.networking_config.endpoints_config):
        if name == "host":
            raise Unsupported(f"network mode host refused: {_OWN_KERNEL}")
        if name.startswith("container:"):
            raise Unsupported(f"network mode {name} refused: {_OWN_KERNEL}")
        if name not in PLAIN_NETWORKS:
            raise Unsupported(f"network {name} not found: {_NO_NETWORK}")


def _check_namespaces(host: HostConfigBody) -> None:
    for kind, mode, harmless in (
        ("IPC", host.ipc_mode, {"", "private", "shareable"}),
        ("PID", host.pid_mode, {"", "private"}),
        ("UTS", host.uts_mode, {""}),
        ("cgroup", host.cgroupns_mode, {"", "private"}),
        # "host" switches off a mapping of users that there is none of.
        ("user", host.userns_mode, {"", "host", "private"}),
    ):
        if mode not in harmless:
            raise Unsupported(f"{kind} namespace mode {mode} refused: {_OWN_KERNEL}")


def _check_devices(host: HostConfigBody) -> None:
    if host.device_requests:
        raise Unsupported(
            "could not select device driver: a virtual machine has no GPU and none of the host's "
            "devices"
        )
    if host.device_cgroup_rules:
        raise Unsupported("device cgroup rules are not supported: name devices, or use privileged")
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        raise Unsupported("Your kernel does not support CPU real-time scheduler")


def _check_logging(host: HostConfigBody) -> None:
    driver, options = host.log_config.type, host.log_config.config
    if driver not in LOG_DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    if driver == "none":
        return
    for name in options:
        if name not in JSON_FILE_OPTIONS | MODE_OPTIONS:
            raise InvalidArgument(
                f"unknown log opt '{name}' for {driver or DEFAULT_LOG_DRIVER} log driver"
            )
