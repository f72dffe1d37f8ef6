"""The agent in a real VM: a guest that runs out of memory, or lacks its channel."""

from pathlib import Path

import pytest

from app.core.units import MIB
from app.domain.container import ContainerConfig
from app.domain.sizing import size_vm
from app.guest.protocol import Tag
from tests.integration.agent_lab import Disk, Machines

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]


@pytest.mark.parametrize("limit_mib", [8, 32, 300, 0], ids=lambda mib: f"{mib}-mib")
def test_container_runs_out_of_memory_before_the_guest(
    machines: Machines, base_layer: Path, scratch: Disk, limit_mib: int
) -> None:
    """In a VM of the size that the engine gives, with a limit and without."""
    size = size_vm(
        ContainerConfig(image="i", memory_bytes=limit_mib * MIB),
        layer_count=1,
        default_memory_bytes=640 * MIB,
        default_vcpus=1,
        host_cpus=1,
    )
    vm = machines.boot([Disk("base", base_layer), scratch], size.memory_bytes // MIB)
    # A shell and a child, whose pages the kernel could also throw away and read again, for ever.
    box = vm.run("sh", "-c", "tail /dev/zero; true", memory_bytes=size.container_limit_bytes)
    assert box.exit_number(Tag.OOM_KILLED) == 1
    assert vm.shell("echo alive") == "alive\n"
    console = vm.console.read_text(errors="replace")
    assert "Memory cgroup out of memory: Killed process" in console
    assert "] Out of memory" not in console


def test_fork_bomb_is_killed_and_the_agent_answers(
    machines: Machines, base_layer: Path, scratch: Disk
) -> None:
    vm = machines.boot([Disk("base", base_layer), scratch])
    script = "f() { f | f & }; f; sleep 1000"
    box = vm.create("sh", "-c", script, name=vm.name(), pids_max=2000)
    box.start()
    vm.host.until(lambda: box.stats()["STAT_PIDS"] > 500)
    box.signal(9)
    box.wait(60)
    assert box.exit_code == 137
    assert vm.shell("echo alive") == "alive\n"


def test_guest_without_its_port_ends_with_a_reason(machines: Machines, scratch: Disk) -> None:
    vm = machines.boot([scratch], port="another.name")
    assert vm.process.wait(60) == 0  # panic=-1 and -no-reboot
    console = vm.console.read_text(errors="replace")
    assert "no virtio port called slipway.0 appeared" in console
    assert "Kernel panic" in console
