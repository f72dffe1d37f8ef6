"""The check before each start: how large the VM gets, and whether the host can bear it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ResourceExhausted
from app.core.units import MIB
from app.domain.container_config import ContainerConfig
from app.domain.sizing import START_COST_BYTES, LaunchPlan, VmSize, plan_launch, size_vm


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

    def size(self, config: ContainerConfig, *, layer_count: int) -> VmSize:
        """The VM this container gets."""
        return size_vm(
            config,
            layer_count=layer_count,
            default_memory_bytes=self._default_memory_bytes,
            default_vcpus=self._default_vcpus,
            host_cpus=self._host_cpus,
        )

    async def plan(self, config: ContainerConfig, *, layer_count: int) -> LaunchPlan:
        """What a start would cost now."""
        memory = await asyncio.to_thread(self._read)
        return plan_launch(
            self.size(config, layer_count=layer_count),
            host_available_bytes=memory.available_bytes,
            reserve_bytes=self._reserve_bytes,
        )

    async def has_room_for(self, starts: int) -> bool:
        """Whether so many more VMs of the usual shape would leave the host its reserve."""
        memory = await asyncio.to_thread(self._read)
        return memory.available_bytes - starts * START_COST_BYTES >= self._reserve_bytes

    async def require(self, config: ContainerConfig, *, layer_count: int, name: str) -> VmSize:
        """The VM's size, if the host can bear it.

        Raises:
            ResourceExhausted: The host's available memory would fall below the reserve.
        """
        plan = await self.plan(config, layer_count=layer_count)
        if not plan.fits:
            raise ResourceExhausted(
                f"Container {name} was not started: the host has "
                f"{plan.host_available_bytes // MIB} MiB available and keeps "
                f"{plan.reserve_bytes // MIB} MiB in reserve",
                advice="Stop other containers, or lower SLIPWAY_MEMORY_RESERVE_BYTES.",
            )
        return self.size(config, layer_count=layer_count)
