"""The host this engine runs on, and its VMs."""

import asyncio
import os
import platform
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from app import __version__
from app.domain.vm import Accelerator, VmRecord
from app.oci.store import ImageStore
from app.services.admission import read_memory
from app.services.pool import PoolView, WarmPool
from app.services.registry import ContainerRegistry
from app.services.supervisor import Supervisor
from app.services.templates import TemplateShelf, TemplateView


@dataclass(frozen=True)
class HostView:
    """A host as shown; memory and disk are the host's own numbers at this moment.

    Attributes:
        pool: None if it is off.
        docker_tcp: Address at which the Docker API asks for no certificate; empty: none.
    """

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
    templates: tuple[TemplateView, ...]
    pool: PoolView | None
    docker_tcp: str = ""


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
        slipway_version=__version__,
    )


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


class HostService:
    """The host and its VMs, as shown."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        data_dir: Path,
        hypervisor: str,
        hypervisor_version: str,
        accelerator: Accelerator,
        guest_kernel: str,
        guest_build_key: str,
        registry: ContainerRegistry,
        images: ImageStore,
        supervisor: Supervisor,
        templates: TemplateShelf,
        pool: WarmPool | None = None,
        docker_tcp: str,
    ) -> None:
        self._facts = facts
        self._data_dir = data_dir
        self._hypervisor = hypervisor
        self._hypervisor_version = hypervisor_version
        self._accelerator = accelerator
        self._guest_kernel = guest_kernel
        self._guest_build_key = guest_build_key
        self._registry = registry
        self._images = images
        self._supervisor = supervisor
        self._templates = templates
        self._pool = pool
        self._docker_tcp = docker_tcp
        self._started_at_ns = time.time_ns()

    async def host(self) -> HostView:
        """The host now."""
        memory = await asyncio.to_thread(read_memory)
        disk_total_bytes, disk_free_bytes = await asyncio.to_thread(
            disk_usage_bytes, self._data_dir
        )
        containers = await self._registry.list()
        return HostView(
            name=self._facts.name,
            os=self._facts.os,
            kernel=self._facts.kernel,
            cpu_model=self._facts.cpu_model,
            cpus=self._facts.cpus,
            memory_total_bytes=memory.total_bytes,
            memory_available_bytes=memory.available_bytes,
            disk_total_bytes=disk_total_bytes,
            disk_free_bytes=disk_free_bytes,
            data_dir=str(self._data_dir),
            hypervisor=self._hypervisor,
            hypervisor_version=self._hypervisor_version,
            accelerator=self._accelerator,
            guest_kernel=self._guest_kernel,
            guest_build_key=self._guest_build_key,
            slipway_version=self._facts.slipway_version,
            started_at_ns=self._started_at_ns,
            containers_running=sum(each.is_live for each in containers),
            containers_total=len(containers),
            images_total=len(self._images.list_images()),
            templates=self._templates.views(),
            pool=self._pool.view() if self._pool is not None else None,
            docker_tcp=self._docker_tcp,
        )

    async def vms(self) -> list[VmRecord]:
        """One for each container that runs."""
        return self._supervisor.vms()


def disk_usage_bytes(path: Path) -> tuple[int, int]:
    """Total and free bytes of the file system that holds `path`."""
    usage = shutil.disk_usage(path)
    return usage.total, usage.free
