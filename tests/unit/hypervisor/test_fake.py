"""What can be made to go wrong on the fake machine."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import Conflict, DeadlineExceeded, ResourceExhausted
from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.vm import VmEndReason
from app.hypervisor.fake import FakeHypervisor
from app.hypervisor.fake_machine import FakeMachine
from app.hypervisor.port import DiskSpec, Vm, VmSpec


async def echo(_spec: VmSpec, reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
        await writer.drain()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[FakeMachine]:
    async with FakeMachine(tmp_path / "v", echo) as made:
        yield made


@pytest.fixture
def hypervisor(machine: FakeMachine) -> FakeHypervisor:
    return FakeHypervisor(machine)


@pytest.fixture
def spec(tmp_path: Path) -> VmSpec:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.touch()
    initrd.touch()
    return VmSpec(new_vm_id(), 1, 128 * MIB, kernel, initrd, "quiet", (), {})


@pytest.fixture
async def vm(hypervisor: FakeHypervisor, spec: VmSpec) -> Vm:
    return await hypervisor.create(spec)


@pytest.fixture
def disk(tmp_path: Path) -> DiskSpec:
    image = tmp_path / "image"
    image.touch()
    return DiskSpec("data", image, read_only=False)


async def test_channel_bytes_come_back(vm: Vm) -> None:
    reader, writer = await vm.open_channel()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()


@pytest.mark.parametrize("cut", [1, 5, 9])
async def test_channel_cut_to_host_ends_at_the_byte(machine: FakeMachine, vm: Vm, cut: int) -> None:
    machine.cut_channel_after(vm.spec.id, to_host_bytes=cut)
    reader, writer = await vm.open_channel()
    writer.write(b"0123456789")
    assert await reader.read() == b"0123456789"[:cut]
    writer.close()


async def test_rest_of_a_cut_chunk_comes_first_on_the_next_connection(
    machine: FakeMachine, vm: Vm
) -> None:
    machine.cut_channel_after(vm.spec.id, to_host_bytes=4)
    reader, writer = await vm.open_channel()
    writer.write(b"0123456789")
    assert await reader.read() == b"0123"
    writer.close()
    reader, writer = await vm.open_channel()
    assert await reader.readexactly(6) == b"456789"
    writer.close()


async def test_guest_holds_the_rest_of_what_an_earlier_host_sent(
    machine: FakeMachine, vm: Vm
) -> None:
    machine.cut_channel_after(vm.spec.id, to_guest_bytes=4)
    reader, writer = await vm.open_channel()
    writer.write(b"0123456789")
    await reader.read()
    writer.close()
    reader, writer = await vm.open_channel()
    assert await reader.readexactly(6) == b"456789"
    writer.close()


async def test_torn_channel_is_eof_and_comes_back(machine: FakeMachine, vm: Vm) -> None:
    reader, writer = await vm.open_channel()
    await machine.tear_channel(vm.spec.id)
    assert await reader.read() == b""
    writer.close()
    reader, writer = await vm.open_channel()
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()


async def test_silent_guest_takes_the_connection_and_says_nothing(
    machine: FakeMachine, hypervisor: FakeHypervisor, spec: VmSpec
) -> None:
    machine.faults.silent_guest = True
    vm = await hypervisor.create(spec)
    reader, writer = await vm.open_channel()
    writer.write(b"hello")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.readexactly(1)
    writer.close()


async def test_create_error_leaves_nothing(
    machine: FakeMachine, hypervisor: FakeHypervisor, spec: VmSpec
) -> None:
    machine.faults.create_error = ResourceExhausted("no memory")
    with pytest.raises(ResourceExhausted):
        await hypervisor.create(spec)
    assert not machine.vms
    assert not (machine.run_root / spec.id).exists()


async def test_create_cancelled_at_the_gate_leaves_nothing(
    machine: FakeMachine, hypervisor: FakeHypervisor, spec: VmSpec
) -> None:
    machine.faults.create_gate = asyncio.Event()
    creating = asyncio.create_task(hypervisor.create(spec))
    async with asyncio.timeout(5):
        while not (machine.run_root / spec.id).exists():  # noqa: ASYNC110 -- a thread makes it
            await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert not (machine.run_root / spec.id).exists()
    machine.faults.create_gate = None
    assert (await hypervisor.create(spec)).spec == spec


async def test_slow_disk_is_attached_once_it_answers(
    machine: FakeMachine, vm: Vm, disk: DiskSpec
) -> None:
    machine.faults.attach_gate = asyncio.Event()
    attaching = asyncio.create_task(vm.attach_disk(disk))
    await asyncio.sleep(0)
    assert not machine.vms[vm.spec.id].disks
    machine.faults.attach_gate.set()
    await attaching
    assert machine.vms[vm.spec.id].disks == {"data": disk}


async def test_slow_disk_cancelled_is_not_attached(
    machine: FakeMachine, vm: Vm, disk: DiskSpec
) -> None:
    machine.faults.attach_gate = asyncio.Event()
    attaching = asyncio.create_task(vm.attach_disk(disk))
    await asyncio.sleep(0)
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    assert not machine.vms[vm.spec.id].disks


async def test_silent_monitor_meets_the_deadline(
    machine: FakeMachine, vm: Vm, disk: DiskSpec
) -> None:
    machine.faults.monitor_silent = True
    with pytest.raises(DeadlineExceeded):
        await vm.attach_disk(disk)
    vm_exit = await vm.stop(VmEndReason.STOPPED, grace_s=0.01)
    assert vm_exit.reason is VmEndReason.STOPPED


async def test_image_of_an_ended_vm_is_free(
    hypervisor: FakeHypervisor, vm: Vm, disk: DiskSpec, spec: VmSpec
) -> None:
    await vm.attach_disk(disk)
    other = replace(spec, id=new_vm_id(), disks=(disk,))
    with pytest.raises(Conflict):
        await hypervisor.create(other)
    await vm.stop(VmEndReason.STOPPED, grace_s=1)
    await hypervisor.create(other)


async def test_failures_of_the_host_have_their_reasons(
    machine: FakeMachine, hypervisor: FakeHypervisor, spec: VmSpec
) -> None:
    reasons = []
    for harm in (
        machine.kill,
        machine.oom_kill,
        machine.panic,
        machine.power_off,
        lambda vm_id: machine.fail(vm_id, "qemu: lost"),
    ):
        vm = await hypervisor.create(replace(spec, id=new_vm_id()))
        await harm(vm.spec.id)
        reasons.append((await vm.wait()).reason)
    assert reasons == [
        VmEndReason.KILLED,
        VmEndReason.OUT_OF_HOST_MEMORY,
        VmEndReason.PANIC,
        VmEndReason.POWERED_OFF,
        VmEndReason.FAILED,
    ]


async def test_paused_vm_says_why(machine: FakeMachine, vm: Vm) -> None:
    machine.pause(vm.spec.id, "the host's disk is full")
    assert await vm.is_paused()
    assert vm.pause_reason == "the host's disk is full"
    machine.resume(vm.spec.id)
    assert not await vm.is_paused()
