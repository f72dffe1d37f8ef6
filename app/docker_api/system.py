"""What a client asks first: /_ping, /version and /info."""

import platform
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from app.docker_api.access import ServicesOf
from app.docker_api.times import iso_time
from app.docker_api.versions import ENGINE_VERSION, NEWEST, OLDEST
from app.domain.container import Container, ContainerState
from app.oci.registry.options import LOOPBACK, RegistryOptions
from app.services.hosts import HostView

router = APIRouter()

REGISTRY = "https://index.docker.io/v1/"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OPEN = (
    "API is accessible on http://{} without encryption: whoever reaches it owns this engine. "
    "Unset SLIPWAY_DOCKER_TCP, or set up TLS."
)
_PING_HEADERS = {
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Builder-Version": "1",  # the classic builder: there is no BuildKit inside
    "Swarm": "inactive",
}
_COUNTED_RUNNING = frozenset({ContainerState.RUNNING, ContainerState.STOPPING})


@router.get("/_ping")
async def ping() -> Response:
    """The engine serves."""
    return Response("OK", headers=_PING_HEADERS, media_type="text/plain")


@router.head("/_ping")
async def head_ping() -> Response:
    """As GET; the CLI negotiates the version by its headers."""
    headers = {**_PING_HEADERS, "Content-Length": "0"}
    return Response(headers=headers, media_type="text/plain")


@router.get("/version")
async def version(services: ServicesOf) -> dict[str, Any]:
    """Versions of the engine and of what it runs on."""
    host = await services.hosts.host()
    details = {
        "ApiVersion": str(NEWEST),
        "Arch": _architecture(),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "KernelVersion": host.guest_kernel,
        "MinAPIVersion": str(OLDEST),
        "Os": "linux",
    }
    components = [
        {"Name": "Engine", "Version": ENGINE_VERSION, "Details": details},
        {
            "Name": host.hypervisor,
            "Version": host.hypervisor_version,
            "Details": {"Accelerator": host.accelerator.name},
        },
    ]
    return {
        "Platform": {"Name": f"Slipway {host.slipway_version}"},
        "Components": components,
        "Version": ENGINE_VERSION,
        **{name: details[name] for name in ("ApiVersion", "MinAPIVersion", "GitCommit")},
        **{name: details[name] for name in ("GoVersion", "Os", "Arch", "KernelVersion")},
        "BuildTime": "",
    }


def _architecture() -> str:
    return ARCHITECTURES.get(platform.machine(), platform.machine())


@router.get("/info")
async def info(services: ServicesOf) -> dict[str, Any]:
    """What the engine is and has."""
    host = await services.hosts.host()
    containers = await services.containers.list()
    return {
        "ID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"slipway://{host.name}{host.data_dir}")),
        **_counts(containers),
        "Images": host.images_total,
        **_what_it_can(),
        **_what_it_is(host),
        **_registries(services.registries.options),
        "Warnings": [_OPEN.format(host.docker_tcp)] if host.docker_tcp else None,
    }


def _counts(containers: Sequence[Container]) -> dict[str, int]:
    states = Counter(_counted_state(each.state) for each in containers)
    return {
        "Containers": len(containers),
        "ContainersRunning": states["running"],
        "ContainersPaused": states["paused"],
        "ContainersStopped": states["stopped"],
    }


def _counted_state(state: ContainerState) -> str:
    if state is ContainerState.PAUSED:
        return "paused"
    return "running" if state in _COUNTED_RUNNING else "stopped"


def _what_it_can() -> dict[str, Any]:
    return {
        "Driver": "overlayfs",
        "DriverStatus": [["Layers", "squashfs"], ["Backing Filesystem", "ext4"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": ["json-file", "none"],
        },
        "MemoryLimit": True,
        "SwapLimit": False,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": False,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "OomKillDisable": False,
        "Debug": False,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "LiveRestoreEnabled": True,
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "Runtimes": {"runc": {"path": "slipway"}},
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "Isolation": "",
        "InitBinary": "slipway-agent",
        "ContainerdCommit": _no_commit(),
        "RuncCommit": _no_commit(),
        "InitCommit": _no_commit(),
        "CDISpecDirs": [],
        "GenericResources": None,
        "ExperimentalBuild": False,
        "NFd": -1,
        "NGoroutines": -1,
        "NEventsListener": 0,
    }


def _no_commit() -> dict[str, str]:
    return {"ID": "", "Expected": ""}


def _registries(options: RegistryOptions) -> dict[str, Any]:
    mirrors = [f"{url.rstrip('/')}/" for url in options.mirrors]
    known: dict[str, dict[str, Any]] = {
        host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
        for host in options.insecure
        if "/" not in host
    }
    known["docker.io"] = {
        "Name": "docker.io",
        "Mirrors": mirrors,
        "Secure": True,
        "Official": True,
    }
    return {
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": [
                *LOOPBACK,
                *(each for each in options.insecure if "/" in each),
            ],
            "IndexConfigs": known,
            "Mirrors": mirrors,
        }
    }


def _what_it_is(host: HostView) -> dict[str, Any]:
    return {
        "SystemTime": iso_time(time.time_ns()),
        "KernelVersion": host.guest_kernel,
        "OperatingSystem": f"{host.os} (each container in a VM of {host.hypervisor})",
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": REGISTRY,
        "NCPU": host.cpus,
        "MemTotal": host.memory_total_bytes,
        "DockerRootDir": host.data_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host.name,
        "Labels": [],
        "ServerVersion": ENGINE_VERSION,
        "ProductLicense": "Apache-2.0",
    }
