"""How large a VM a container gets, and whether the host can bear it."""

import math
from dataclasses import dataclass

from app.core.units import MIB
from app.domain.container_config import ContainerConfig

# What kernel, agent and page tables need besides the container: VM size less MemAvailable is 85,
# 95, 111 and 136 MiB in VMs of 160, 512, 1024 and 2048 MiB, that is 80 MiB and a 36th. The other
# 24 MiB keep the guest from thrashing in its page cache instead of ending the container.
GUEST_FIXED_BYTES = 104 * MIB
GUEST_SHARE_DIVISOR = 36
LAYER_BYTES = MIB  # a disk and its mount, measured with 127 layers
# A template has the base; what a VM has above it is plugged into the clone in whole blocks. A VM
# that is booted for its container gets the same sizes, so that the path can't be told from inside.
BASE_MEMORY_BYTES = 256 * MIB
MEMORY_BLOCK_BYTES = 128 * MIB  # of Linux's memory hotplug on x86
# Host memory a fresh VM occupies once its container runs; what it may take later is overcommitted.
START_COST_BYTES = 192 * MIB


@dataclass(frozen=True)
class VmSize:
    """Shape of a VM.

    Attributes:
        container_limit_bytes: `memory.max` of the container in the guest, so that the container
            runs out of memory and never the guest.
        cpu_quota: CPUs the container may use; None: all vCPUs.
    """

    memory_bytes: int
    vcpus: int
    container_limit_bytes: int
    cpu_quota: float | None


@dataclass(frozen=True)
class LaunchPlan:
    """What a launch would cost, shown before it is done."""

    vm_memory_bytes: int
    vcpus: int
    host_available_bytes: int
    reserve_bytes: int
    fits: bool


def size_vm(
    config: ContainerConfig,
    *,
    layer_count: int,
    default_memory_bytes: int,
    default_vcpus: int,
    host_cpus: int,
) -> VmSize:
    """Choose the VM for a container: its limit is exact, the guest's own need comes on top."""
    fixed_bytes = GUEST_FIXED_BYTES + layer_count * LAYER_BYTES
    if config.memory_bytes:
        own_need_bytes = fixed_bytes + config.memory_bytes // GUEST_SHARE_DIVISOR
        memory_bytes = _whole_blocks(config.memory_bytes + own_need_bytes)
        limit_bytes = config.memory_bytes
    else:
        memory_bytes = _whole_blocks(default_memory_bytes)
        limit_bytes = memory_bytes - fixed_bytes - memory_bytes // GUEST_SHARE_DIVISOR
    vcpus = default_vcpus or min(host_cpus, 2)
    if config.cpu_limit:
        vcpus = min(max(math.ceil(config.cpu_limit), 1), host_cpus)
    return VmSize(
        memory_bytes=memory_bytes,
        vcpus=vcpus,
        container_limit_bytes=limit_bytes,
        cpu_quota=config.cpu_limit or None,
    )


def _whole_blocks(memory_bytes: int) -> int:
    """The smallest size of a VM that holds so much."""
    above_bytes = max(memory_bytes - BASE_MEMORY_BYTES, 0)
    return BASE_MEMORY_BYTES + -(-above_bytes // MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES


def plan_launch(size: VmSize, *, host_available_bytes: int, reserve_bytes: int) -> LaunchPlan:
    """Say whether a start leaves the host its reserve.

    Guest memory is taken only as the guest touches it, so a start needs START_COST_BYTES now (or
    the whole VM, where that is smaller), and the rest is overcommitted.
    """
    cost_bytes = min(START_COST_BYTES, size.memory_bytes)
    return LaunchPlan(
        vm_memory_bytes=size.memory_bytes,
        vcpus=size.vcpus,
        host_available_bytes=host_available_bytes,
        reserve_bytes=reserve_bytes,
        fits=host_available_bytes - cost_bytes >= reserve_bytes,
    )
