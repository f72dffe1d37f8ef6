"""A container as GET /containers/{id}/json shows it."""

from typing import Any

from app.docker_api.host_config import host_config_view, mounts_view
from app.docker_api.times import iso_time
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig, merge_command
from app.domain.health import Health, effective_check, probe_command
from app.domain.image import Healthcheck, ImageConfig

STORAGE_DRIVER = "overlayfs"
NO_IMAGE = ImageConfig()
# A container whose start is under way was, to Docker, never started; one whose end is, still runs.
_STATUS = {
    ContainerState.STARTING: "created",
    ContainerState.STOPPING: "running",
}
_RUNS = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPING})


def status_of(container: Container) -> str:
    """Docker's word for its state."""
    if container.state is ContainerState.STARTING and container.started_at_ns is not None:
        return "restarting" if container.restart_count else "exited"
    return _STATUS.get(container.state, str(container.state))


def runs(container: Container) -> bool:
    """Whether Docker would say so; a container that waits for its restart counts."""
    return container.state in _RUNS or container.state is ContainerState.RESTARTING


def shown_health(container: Container, image: ImageConfig) -> Health | None:
    """What its check found; before the first look at one that runs, that it begins."""
    if container.health is not None or not runs(container):
        return container.health
    check = effective_check(container.config.healthcheck, image.healthcheck)
    return None if probe_command(check, image.shell) is None else Health()


def inspect_view(
    container: Container, image: ImageConfig | None, *, exec_ids: list[str], sizes: dict[str, int]
) -> dict[str, Any]:
    """All of it.

    Args:
        container: The record.
        image: Its image's settings; None if the image is gone.
        exec_ids: Of commands that run in it.
        sizes: SizeRw and SizeRootFs, or nothing.
    """
    config = container.config
    entrypoint, command = merge_command(config, image or NO_IMAGE)
    words = (*entrypoint, *command)
    return {
        "Id": container.id,
        "Created": iso_time(container.created_at_ns),
        "Path": words[0] if words else "",
        "Args": list(words[1:]),
        "State": _state(container, shown_health(container, image or NO_IMAGE)),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": host_config_view(config),
        "GraphDriver": {"Data": {}, "Name": STORAGE_DRIVER},
        **sizes,
        "Mounts": mounts_view(config),
        "Config": config_view(config, image or NO_IMAGE, hostname=container.short_id),
        "NetworkSettings": network_settings(),
    }


def _state(container: Container, health: Health | None) -> dict[str, Any]:
    state = container.state
    running = runs(container)
    view = {
        "Status": status_of(container),
        "Running": running,
        "Paused": state is ContainerState.PAUSED,
        "Restarting": state is ContainerState.RESTARTING,
        "OOMKilled": container.oom_killed,
        "Dead": state is ContainerState.DEAD,
        "Pid": (container.pid or 0) if running else 0,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": iso_time(container.started_at_ns),
        "FinishedAt": iso_time(container.finished_at_ns),
    }
    if health is not None:
        view["Health"] = _health(health)
    return view


def _health(health: Health) -> dict[str, Any]:
    return {
        "Status": str(health.status),
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": iso_time(probe.started_at_ns),
                "End": iso_time(probe.ended_at_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.probes
        ],
    }


def config_view(config: ContainerConfig, image: ImageConfig, *, hostname: str) -> dict[str, Any]:
    """Config: the operator's wishes over the image's (moby, runconfig/merge.go)."""
    attached = config.echo.get("Config")
    attached = attached if isinstance(attached, dict) else {}
    entrypoint, command = merge_command(config, image)
    ports = {*image.exposed_ports, *config.exposed_ports}
    view: dict[str, Any] = {
        "Hostname": config.hostname or hostname,
        "Domainname": config.domainname,
        "User": config.user or image.user,
        "AttachStdin": attached.get("AttachStdin", False),
        "AttachStdout": attached.get("AttachStdout", False),
        "AttachStderr": attached.get("AttachStderr", False),
    }
    if ports:
        view["ExposedPorts"] = {port: {} for port in sorted(ports)}
    view |= {
        "Tty": config.tty,
        "OpenStdin": config.stdin_open,
        "StdinOnce": config.stdin_once,
        "Env": merged_env(config, image),
        "Cmd": list(command) or None,
    }
    health = effective_check(config.healthcheck, image.healthcheck)
    if health is not None:
        view["Healthcheck"] = healthcheck_view(health)
    view |= {
        "Image": config.image,
        "Volumes": {path: {} for path in image.volumes} or None,
        "WorkingDir": config.working_dir or image.working_dir,
        "Entrypoint": list(entrypoint) or None,
        "OnBuild": None,
        "Labels": merged_labels(config, image),
    }
    optional = {
        "StopSignal": config.stop_signal or image.stop_signal,
        "StopTimeout": config.stop_timeout_s,
        "Shell": list(image.shell),
    }
    return view | {name: value for name, value in optional.items() if value not in ("", None, [])}


def merged_labels(config: ContainerConfig, image: ImageConfig) -> dict[str, str]:
    """The image's labels under the container's own."""
    return {**image.labels, **config.labels}


def merged_env(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """The container's entries, then those of the image that it has no other value for."""
    own = {entry.partition("=")[0] for entry in config.env}
    return [*config.env, *(entry for entry in image.env if entry.partition("=")[0] not in own)]


def healthcheck_view(check: Healthcheck) -> dict[str, Any]:
    """Config.Healthcheck: what is set."""
    numbers = {
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    view: dict[str, Any] = {"Test": list(check.test)} if check.test else {}
    return view | {name: number for name, number in numbers.items() if number}


def network_settings() -> dict[str, Any]:
    """A container has a loopback interface and no more: Docker's network `none`."""
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": networks_view(),
    }


def networks_view() -> dict[str, Any]:
    """NetworkSettings.Networks of inspect and list."""
    return {
        "none": {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "",
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DriverOpts": None,
            "DNSNames": None,
        }
    }
