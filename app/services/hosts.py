"""The host this engine runs on: facts for the dashboard, and the check before each start."""

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.core.errors import ResourceExhausted
from app.core.units import MIB
from app.domain.container import ContainerConfig
from app.domain.sizing import LaunchPlan, VmSize, plan_launch, size_vm
from app.domain.vm import Accelerator


@dataclass(frozen=True)
class HostView:
    """A host as shown; memory and disk are the host's own numbers at this moment."""

    name: str
    os: str
    kernel: str
    cpu_model: str
    cpus: int
    memory_total_bytes: int
    memory_available_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    data_dir: str
    hypervisor: str
    hypervisor_version: str
    accelerator: Accelerator
    guest_kernel: str
    guest_build_key: str
    slipway_version: str
    started_at_ns: int
    containers_running: int
    containers_total: int
    images_total: int


@dataclass(frozen=True)
class HostFacts:
    """What does not change while the engine runs."""

    name: str
    os: str
    kernel: str
    cpu_model: str
    cpus: int
    slipway_version: str


def read_host_facts() -> HostFacts:
    """Read the facts from the machine; a few milliseconds of file reading."""
    return HostFacts(
        name=socket.gethostname(),
        os=_os_name(Path("/etc/os-release")),
        kernel=platform.release(),
        cpu_model=_cpu_model(Path("/proc/cpuinfo")),
        cpus=len(os.sched_getaffinity(0)),
        slipway_version=slipway_version(),
    )


def slipway_version() -> str:
    """The installed package's version; a bare checkout without one says so."""
    try:
        return version("slipway")
    except PackageNotFoundError:
        return "checkout"


def _os_name(os_release: Path) -> str:
    for line in os_release.read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _cpu_model(cpuinfo: Path) -> str:
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@dataclass(frozen=True)
class MemoryReading:
    """Host memory by /proc/meminfo (proc(5)): MemAvailable is what new work can take."""

    total_bytes: int
    available_bytes: int


def read_memory(meminfo: Path = Path("/proc/meminfo")) -> MemoryReading:
    """Read the host's memory now."""
    values_kib = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in meminfo.read_text().splitlines())
    }
    return MemoryReading(values_kib["MemTotal"] * 1024, values_kib["MemAvailable"] * 1024)


class Admission:
    """Decides the VM's size, and whether the host can bear one more start."""

    def __init__(
        self,
        *,
        default_memory_bytes: int,
        default_vcpus: int,
        reserve_bytes: int,
        host_cpus: int,
        read: Callable[[], MemoryReading] = read_memory,
    ) -> None:
        self._default_memory_bytes = default_memory_bytes
        self._default_vcpus = default_vcpus
        self._reserve_bytes = reserve_bytes
        self._host_cpus = host_cpus
        self._read = read

    def size(self, config: ContainerConfig) -> VmSize:
        """The VM this container gets."""
        return size_vm(
            config,
            default_memory_bytes=self._default_memory_bytes,
            default_vcpus=self._default_vcpus,
            host_cpus=self._host_cpus,
        )

    async def plan(self, config: ContainerConfig) -> LaunchPlan:
        """What a start would cost now."""
        memory = await asyncio.to_thread(self._read)
        return plan_launch(
            self.size(config),
            host_available_bytes=memory.available_bytes,
            reserve_bytes=self._reserve_bytes,
        )

    async def require(self, config: ContainerConfig, *, name: str) -> VmSize:
        """The VM's size, if the host can bear it.

        Raises:
            ResourceExhausted: The host's available memory would fall below the reserve.
        """
        plan = await self.plan(config)
        if not plan.fits:
            raise ResourceExhausted(
                f"Container {name} was not started: the host has "
                f"{plan.host_available_bytes // MIB} MiB available and keeps "
                f"{plan.reserve_bytes // MIB} MiB in reserve",
                advice="Stop other containers, or lower SLIPWAY_MEMORY_RESERVE_BYTES.",
            )
        return self.size(config)


def disk_usage_bytes(path: Path) -> tuple[int, int]:
    """Total and free bytes of the file system that holds `path`."""
    usage = shutil.disk_usage(path)
    return usage.total, usage.free
