import pytest

from app.core.units import GIB, MIB
from app.domain.container import ContainerConfig
from app.domain.sizing import BASE_MEMORY_BYTES, MEMORY_BLOCK_BYTES, plan_launch, size_vm


def size(config: ContainerConfig) -> tuple[int, int, int, float | None]:
    vm = size_vm(config, layer_count=1, default_memory_bytes=GIB, default_vcpus=0, host_cpus=4)
    return vm.memory_bytes, vm.vcpus, vm.container_limit_bytes, vm.cpu_quota


def test_without_limit_the_default_vm_and_the_container_below_it() -> None:
    memory_bytes, vcpus, limit_bytes, quota = size(ContainerConfig(image="i"))
    assert (memory_bytes, vcpus, quota) == (GIB, 2, None)
    assert GIB - 144 * MIB < limit_bytes < GIB - 96 * MIB


@pytest.mark.parametrize("limit_bytes", [6 * MIB, 64 * MIB, 512 * MIB, 8 * GIB])
def test_a_limit_is_exact_and_the_guests_need_comes_on_top(limit_bytes: int) -> None:
    memory_bytes, _, container_bytes, _ = size(ContainerConfig(image="i", memory_bytes=limit_bytes))
    assert container_bytes == limit_bytes
    assert memory_bytes - limit_bytes >= 104 * MIB
    assert memory_bytes - limit_bytes < BASE_MEMORY_BYTES + limit_bytes // 36 + MEMORY_BLOCK_BYTES
    assert (memory_bytes - BASE_MEMORY_BYTES) % MEMORY_BLOCK_BYTES == 0


@pytest.mark.parametrize(
    ("asked_bytes", "memory_bytes"),
    [
        (128 * MIB, 256 * MIB),
        (256 * MIB, 256 * MIB),
        (256 * MIB + 1, 384 * MIB),
        (GIB, GIB),
    ],
)
def test_a_vm_is_the_base_and_whole_blocks(asked_bytes: int, memory_bytes: int) -> None:
    vm = size_vm(
        ContainerConfig(image="i"),
        layer_count=1,
        default_memory_bytes=asked_bytes,
        default_vcpus=1,
        host_cpus=1,
    )
    assert vm.memory_bytes == memory_bytes
    assert vm.container_limit_bytes < memory_bytes


def test_a_small_container_runs_in_the_base_alone() -> None:
    memory_bytes, _, _, _ = size(ContainerConfig(image="i", memory_bytes=128 * MIB))
    assert memory_bytes == BASE_MEMORY_BYTES


@pytest.mark.parametrize(("cpus", "vcpus"), [(0.5, 1), (1.5, 2), (3.0, 3), (9.0, 4)])
def test_cpus_round_up_to_the_hosts(cpus: float, vcpus: int) -> None:
    _, got, _, quota = size(ContainerConfig(image="i", cpus=cpus))
    assert (got, quota) == (vcpus, cpus)


def test_plan_refuses_what_would_eat_the_reserve() -> None:
    vm = size_vm(
        ContainerConfig(image="i"),
        layer_count=1,
        default_memory_bytes=GIB,
        default_vcpus=1,
        host_cpus=1,
    )
    assert plan_launch(vm, host_available_bytes=GIB, reserve_bytes=512 * MIB).fits
    assert not plan_launch(vm, host_available_bytes=600 * MIB, reserve_bytes=512 * MIB).fits


def test_every_layer_costs_the_guest_memory() -> None:
    config = ContainerConfig(image="i", memory_bytes=512 * MIB)
    few, many = (
        size_vm(config, layer_count=count, default_memory_bytes=GIB, default_vcpus=1, host_cpus=1)
        for count in (1, 127)
    )
    assert many.memory_bytes - few.memory_bytes == MEMORY_BLOCK_BYTES  # 126 MiB, in whole blocks
    assert many.container_limit_bytes == few.container_limit_bytes
