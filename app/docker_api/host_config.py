"""HostConfig as inspect shows it, in Docker's order."""

from typing import Any

from app.docker_api.create_config import NANOS_PER_CPU
from app.domain.container_config import ContainerConfig
from app.domain.container_options import JsonValue
from app.services.guest_spec import DEFAULT_SHM_BYTES, masked_paths, read_only_paths


def host_config_view(config: ContainerConfig) -> dict[str, Any]:
    """What the container was made with."""
    echo = _echoed(config)
    view = {
        "Binds": None,
        "ContainerIDFile": echo.get("ContainerIDFile", ""),
        "LogConfig": {"Type": config.log_driver, "Config": config.log_options},
        "NetworkMode": config.network_mode,
        "PortBindings": {},
        "RestartPolicy": {
            "Name": str(config.restart_policy.name),
            "MaximumRetryCount": config.restart_policy.maximum_retries,
        },
        "AutoRemove": config.auto_remove,
        "VolumeDriver": echo.get("VolumeDriver", ""),
        "VolumesFrom": None,
        "ConsoleSize": echo.get("ConsoleSize", [0, 0]),
        "CapAdd": _listed(config.cap_add),
        "CapDrop": _listed(config.cap_drop),
        "CgroupnsMode": echo.get("CgroupnsMode", "private"),
        "Dns": _listed(config.dns_servers),
        "DnsOptions": _listed(config.dns_options),
        "DnsSearch": _listed(config.dns_search),
        "ExtraHosts": _listed(config.extra_hosts),
        "GroupAdd": _listed(config.groups),
        "IpcMode": echo.get("IpcMode", "private"),
        "Cgroup": echo.get("Cgroup", ""),
        "Links": None,
        "OomScoreAdj": config.oom_score_adj,
        "PidMode": echo.get("PidMode", ""),
        "Privileged": config.privileged,
        "PublishAllPorts": echo.get("PublishAllPorts", False),
        "ReadonlyRootfs": config.read_only_root,
        "SecurityOpt": _listed(config.security_options),
        "UTSMode": echo.get("UTSMode", ""),
        "UsernsMode": echo.get("UsernsMode", ""),
        "ShmSize": config.shm_bytes or DEFAULT_SHM_BYTES,
        "Runtime": echo.get("Runtime", "runc"),
        "Isolation": echo.get("Isolation", ""),
        **_resources(config, echo),
        "MaskedPaths": list(masked_paths(config)),
        "ReadonlyPaths": list(read_only_paths(config)),
    }
    optional = {
        "Mounts": echo.get("Mounts"),
        "Annotations": echo.get("Annotations"),
        "Tmpfs": _plain_tmpfs(config),
        "Sysctls": config.sysctls,
    }
    view |= {name: value for name, value in optional.items() if value}
    if "Init" in echo:
        view["Init"] = echo["Init"]
    return view


def _resources(config: ContainerConfig, echo: dict[str, JsonValue]) -> dict[str, Any]:
    tuning = config.cpu_tuning
    return {
        "CpuShares": tuning.shares,
        "Memory": config.memory_bytes,
        "NanoCpus": round(config.cpus * NANOS_PER_CPU),
        "CgroupParent": echo.get("CgroupParent", ""),
        "BlkioWeight": 0,
        "BlkioWeightDevice": None,
        "BlkioDeviceReadBps": None,
        "BlkioDeviceWriteBps": None,
        "BlkioDeviceReadIOps": None,
        "BlkioDeviceWriteIOps": None,
        "CpuPeriod": tuning.period_us,
        "CpuQuota": tuning.quota_us,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": tuning.cpuset_cpus,
        "CpusetMems": tuning.cpuset_mems,
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ]
        or None,
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "MemoryReservation": config.memory_reservation_bytes,
        "MemorySwap": _memory_swap(config),
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": config.pids_limit or echo.get("PidsLimit"),
        "Ulimits": [
            {"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in config.ulimits
        ]
        or None,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _memory_swap(config: ContainerConfig) -> int:
    """Unset, it is twice the memory in Docker (moby, daemon/daemon_unix.go)."""
    return config.memory_swap_bytes or 2 * config.memory_bytes


def _plain_tmpfs(config: ContainerConfig) -> dict[str, str]:
    """Those that were not asked for as mounts."""
    mounted = {mount["Destination"] for mount in mounts_view(config)}
    return {path: options for path, options in config.tmpfs.items() if path not in mounted}


def mounts_view(config: ContainerConfig) -> list[dict[str, Any]]:
    """Mounts of inspect and list: those of HostConfig.Mounts, all of which are tmpfs."""
    mounts = _echoed(config).get("Mounts")
    found: list[dict[str, Any]] = []
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, dict):
            by_name = {str(name).lower(): value for name, value in mount.items()}
            found.append(
                {
                    "Type": "tmpfs",
                    "Source": "",
                    "Destination": by_name.get("target", ""),
                    "Mode": "",
                    "RW": not by_name.get("readonly", False),
                    "Propagation": "",
                }
            )
    return found


def _echoed(config: ContainerConfig) -> dict[str, JsonValue]:
    echo = config.echo.get("HostConfig")
    return echo if isinstance(echo, dict) else {}


def _listed(values: tuple[str, ...]) -> list[str] | None:
    return list(values) or None
