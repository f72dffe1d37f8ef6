"""What every hypervisor does: one suite for the fake and for QEMU with a real kernel."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.core.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from app.domain.vm import VmEndReason
from app.hypervisor.port import CONSOLE_LIMIT_BYTES, DiskSpec, Hypervisor, Vm, VmExit
from tests.contract.hypervisor_lab import Lab, Talk, make_image

END_DEADLINE_S = 20.0

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def vm(lab: Lab, hypervisor: Hypervisor) -> AsyncIterator[Vm]:
    created = await hypervisor.create(lab.spec())
    yield created
    with contextlib.suppress(Unavailable):  # a test may have closed the hypervisor
        await created.stop(VmEndReason.STOPPED, grace_s=5)
        await created.discard()


async def ended(vm: Vm) -> VmExit:
    async with asyncio.timeout(END_DEADLINE_S):
        return await vm.wait()


async def test_channel_carries_bytes_both_ways(vm: Vm) -> None:
    async with Talk(vm) as talk:
        assert await talk.ask("echo hello") == "hello"


async def test_vm_tells_what_it_was_created_from(lab: Lab, hypervisor: Hypervisor) -> None:
    spec = lab.spec()
    vm = await hypervisor.create(spec)
    assert vm.spec == spec
    assert vm.pid is not None
    assert vm.started_at_ns > 0
    assert not await vm.is_paused()
    assert vm.pause_reason == ""
    await vm.stop(VmEndReason.STOPPED, grace_s=5)


async def test_open_channel_refuses_second_client(vm: Vm) -> None:
    async with Talk(vm):
        with pytest.raises(Unavailable, match="held"):
            await vm.open_channel()


async def test_open_channel_refuses_client_of_another_engine(lab: Lab, vm: Vm) -> None:
    async with Talk(vm):
        other = lab.engine()
        adopted = {found.spec.id: found for found in await other.adopt()}
        with pytest.raises(Unavailable, match="held"):
            await adopted[vm.spec.id].open_channel()
        await other.close()


async def test_open_channel_again_after_close(vm: Vm) -> None:
    async with Talk(vm) as talk:
        assert await talk.ask("echo one") == "one"
    async with Talk(vm) as talk:
        assert await talk.ask("echo two") == "two"


async def test_channel_torn_mid_line_comes_back(vm: Vm) -> None:
    async with Talk(vm) as talk:
        talk.tell("flood 300000")
        await talk.reader.readexactly(1000)
        talk.writer.transport.abort()
    async with Talk(vm) as talk:
        assert await talk.ask("echo still here") == "still here"


async def test_channel_ends_with_the_vm(lab: Lab, vm: Vm) -> None:
    async with Talk(vm) as talk:
        await lab.kill(vm)
        async with asyncio.timeout(END_DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                assert await talk.reader.read() == b""


async def test_power_off_by_guest_is_told(vm: Vm) -> None:
    async with Talk(vm) as talk:
        talk.tell("poweroff")
        exit_ = await ended(vm)
    assert exit_.reason is VmEndReason.POWERED_OFF
    assert exit_.detail


async def test_panic_is_told_with_its_console(vm: Vm) -> None:
    async with Talk(vm) as talk:
        talk.tell("panic")
        exit_ = await ended(vm)
    assert exit_.reason is VmEndReason.PANIC
    assert "Attempted to kill init" in exit_.detail
    assert "Kernel panic" in vm.console_path.read_text()


async def test_kill_by_somebody_is_told(lab: Lab, vm: Vm) -> None:
    await lab.kill(vm)
    exit_ = await ended(vm)
    assert exit_.reason is VmEndReason.KILLED
    assert "9" in exit_.detail or "kill" in exit_.detail.lower()


async def test_wait_answers_many_and_afterwards(lab: Lab, vm: Vm) -> None:
    waiters = [asyncio.create_task(ended(vm)) for _ in range(3)]
    await lab.kill(vm)
    answers = await asyncio.gather(*waiters)
    assert set(answers) == {await ended(vm)}


async def test_wait_cancelled_leaves_vm_alone(vm: Vm) -> None:
    waiter = asyncio.create_task(vm.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    async with Talk(vm) as talk:
        assert await talk.ask("echo alive") == "alive"


async def test_stop_gives_the_reason_and_is_idempotent(vm: Vm) -> None:
    first = await vm.stop(VmEndReason.SILENT, grace_s=5)
    assert first.reason is VmEndReason.SILENT
    assert await vm.stop(VmEndReason.STOPPED, grace_s=5) == first
    assert await vm.wait() == first


async def test_stop_twice_at_once_ends_once(vm: Vm) -> None:
    one, two = await asyncio.gather(
        vm.stop(VmEndReason.STOPPED, grace_s=5), vm.stop(VmEndReason.SILENT, grace_s=5)
    )
    assert one == two


async def test_stop_after_panic_keeps_the_first_reason(vm: Vm) -> None:
    async with Talk(vm) as talk:
        talk.tell("panic")
        await ended(vm)
    exit_ = await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert exit_.reason is VmEndReason.PANIC


async def test_stop_ends_a_spinning_guest(lab: Lab, vm: Vm) -> None:
    async with Talk(vm) as talk:
        talk.tell("spin")
        await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert f"vm {vm.spec.id}" not in await lab.leftovers()


async def test_operations_on_an_ended_vm_are_unavailable(lab: Lab, vm: Vm) -> None:
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    disk = DiskSpec("late", make_image(lab.directory, "late.img"), read_only=True)
    for operation in (vm.open_channel(), vm.stats(), vm.attach_disk(disk), vm.detach_disk("late")):
        with pytest.raises(Unavailable):
            await operation


async def test_discard_refuses_a_running_vm(vm: Vm) -> None:
    with pytest.raises(Conflict, match=vm.spec.id):
        await vm.discard()


async def test_discard_removes_everything_and_is_idempotent(lab: Lab, vm: Vm) -> None:
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert vm.console_path.exists()
    await vm.discard()
    await vm.discard()
    assert await lab.leftovers() == []


async def test_stats_count_cpu_and_memory(vm: Vm) -> None:
    async with Talk(vm):
        stats = await vm.stats()
        again = await vm.stats()
    assert stats.resident_bytes > 0
    assert again.cpu_ns >= stats.cpu_ns > 0


async def test_disk_given_at_create_is_there_by_serial(lab: Lab, hypervisor: Hypervisor) -> None:
    layer = DiskSpec("layer-1", make_image(lab.directory, "l.img", text="layer"), read_only=True)
    scratch = DiskSpec("scratch", make_image(lab.directory, "s.img"), read_only=False)
    vm = await hypervisor.create(replace(lab.spec(), disks=(layer, scratch)))
    async with Talk(vm) as talk:
        disks = await talk.wait_disks("layer-1", "scratch")
        assert disks["layer-1"] == (layer.path.stat().st_size, "ro")
        assert disks["scratch"][1] == "rw"
        assert await talk.ask("read layer-1") == "block layer"
        assert await talk.ask("write scratch kept") == "block written"
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert scratch.path.read_bytes()[:4] == b"kept"


async def test_disk_hot_add_and_remove(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    assert hypervisor.capabilities.disk_hot_add
    disk = DiskSpec("data-7", make_image(lab.directory, "d.img", text="seven"), read_only=False)
    async with Talk(vm) as talk:
        await vm.attach_disk(disk)
        await talk.wait_disks("data-7")
        assert await talk.ask("read data-7") == "block seven"
        with pytest.raises(Conflict, match="data-7"):
            await vm.attach_disk(disk)
        await vm.detach_disk("data-7")
        await talk.wait_disks()
        await vm.attach_disk(disk)
        await talk.wait_disks("data-7")


async def test_read_only_disk_refuses_writes(lab: Lab, vm: Vm) -> None:
    disk = DiskSpec("ro-1", make_image(lab.directory, "r.img", text="keep"), read_only=True)
    async with Talk(vm) as talk:
        await vm.attach_disk(disk)
        await talk.wait_disks("ro-1")
        assert (await talk.ask("write ro-1 lost")).startswith("error")
    assert disk.path.read_bytes()[:4] == b"keep"


async def test_detach_unknown_disk_is_not_found(vm: Vm) -> None:
    with pytest.raises(NotFound, match="nothing-here"):
        await vm.detach_disk("nothing-here")


async def test_attach_missing_image_is_not_found(lab: Lab, vm: Vm) -> None:
    with pytest.raises(NotFound, match="absent"):
        await vm.attach_disk(DiskSpec("d", lab.directory / "absent.img", read_only=True))


@pytest.mark.parametrize("serial", ["", "a" * 21, "a,b", "a b", "ä", "a\n"])
async def test_attach_refuses_malformed_serial(lab: Lab, vm: Vm, serial: str) -> None:
    image = make_image(lab.directory, "d.img")
    with pytest.raises(InvalidArgument):
        await vm.attach_disk(DiskSpec(serial, image, read_only=True))


async def test_writable_image_is_not_shared(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    disk = DiskSpec("one", make_image(lab.directory, "one.img"), read_only=False)
    await vm.attach_disk(disk)
    with pytest.raises(Conflict):
        await hypervisor.create(replace(lab.spec(), disks=(disk,)))
    assert sum(name.startswith("vm ") for name in await lab.leftovers()) == 1


async def test_create_refuses_known_id(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    before = await lab.leftovers()
    with pytest.raises(Conflict, match=vm.spec.id):
        await hypervisor.create(vm.spec)
    assert await lab.leftovers() == before


async def test_create_with_missing_kernel_leaves_nothing(lab: Lab, hypervisor: Hypervisor) -> None:
    with pytest.raises(NotFound, match="no-kernel"):
        await hypervisor.create(replace(lab.spec(), kernel=lab.directory / "no-kernel"))
    assert await lab.leftovers() == []


async def test_create_with_missing_image_leaves_nothing(lab: Lab, hypervisor: Hypervisor) -> None:
    disk = DiskSpec("d", lab.directory / "absent.img", read_only=True)
    with pytest.raises(NotFound, match="absent"):
        await hypervisor.create(replace(lab.spec(), disks=(disk,)))
    assert await lab.leftovers() == []


@pytest.mark.parametrize(
    "change",
    [{"id": "../../etc"}, {"id": "ABCDEFABCDEF"}, {"vcpus": 0}, {"memory_bytes": 4096}],
    ids=["id-path", "id-case", "vcpus", "memory"],
)
async def test_create_refuses_malformed_spec(
    lab: Lab, hypervisor: Hypervisor, change: dict[str, int | str]
) -> None:
    with pytest.raises(InvalidArgument):
        await hypervisor.create(replace(lab.spec(), **change))  # type: ignore[arg-type]
    assert await lab.leftovers() == []


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_create_cancelled_anywhere_leaves_nothing(
    lab: Lab, hypervisor: Hypervisor, turns: int
) -> None:
    creating = asyncio.create_task(hypervisor.create(lab.spec()))
    for _ in range(turns):
        await asyncio.sleep(0.002)
    creating.cancel()
    try:
        vm = await creating
    except asyncio.CancelledError:
        assert await lab.leftovers() == []
    else:  # it was through already
        await vm.stop(VmEndReason.STOPPED, grace_s=5)


async def test_console_is_readable_and_bounded(vm: Vm) -> None:
    async with Talk(vm) as talk:
        await talk.ask("echo up")
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert 0 < len(vm.console_path.read_bytes()) <= CONSOLE_LIMIT_BYTES


async def test_adopt_finds_the_running_vm(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    disk = DiskSpec("kept", make_image(lab.directory, "k.img", text="kept"), read_only=False)
    await vm.attach_disk(disk)
    await hypervisor.close()
    heir = lab.engine()
    [adopted] = await heir.adopt()
    assert adopted.spec == vm.spec
    assert adopted.pid == vm.pid
    assert adopted.started_at_ns == vm.started_at_ns
    async with Talk(adopted) as talk:
        assert await talk.ask("read kept") == "block kept"
        with pytest.raises(Conflict, match="kept"):
            await adopted.attach_disk(disk)
        await adopted.detach_disk("kept")
        await talk.wait_disks()
    exit_ = await adopted.stop(VmEndReason.STOPPED, grace_s=5)
    assert exit_.reason is VmEndReason.STOPPED
    await adopted.discard()
    assert await lab.leftovers() == []


async def test_adopt_twice_gives_the_same_vms(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    assert await hypervisor.adopt() == [vm]
    assert await hypervisor.adopt() == [vm]


async def test_adopt_finds_nothing_on_a_fresh_host(lab: Lab) -> None:
    assert await lab.engine().adopt() == []


async def test_adopt_tells_how_a_vm_ended_meanwhile(
    lab: Lab, hypervisor: Hypervisor, vm: Vm
) -> None:
    await hypervisor.close()
    await lab.kill(vm)
    [adopted] = await lab.engine().adopt()
    assert adopted.spec == vm.spec
    exit_ = await ended(adopted)
    assert exit_.reason is VmEndReason.KILLED
    await adopted.discard()
    assert await lab.leftovers() == []


async def test_adopt_tells_a_panic_that_nobody_saw(
    lab: Lab, hypervisor: Hypervisor, vm: Vm
) -> None:
    async with Talk(vm) as talk:
        reader = talk.reader
        talk.tell("panic")
        await talk.writer.drain()
        await hypervisor.close()
        await reader.read()
    [adopted] = await lab.engine().adopt()
    exit_ = await ended(adopted)
    assert exit_.reason is VmEndReason.PANIC
    assert "Attempted to kill init" in exit_.detail
    await adopted.discard()


async def test_exit_of_adopted_vm_is_seen(lab: Lab, hypervisor: Hypervisor, vm: Vm) -> None:
    await hypervisor.close()
    [adopted] = await lab.engine().adopt()
    async with Talk(adopted) as talk:
        talk.tell("poweroff")
        exit_ = await ended(adopted)
    assert exit_.reason is VmEndReason.POWERED_OFF


async def test_close_ends_channels_and_refuses_work(hypervisor: Hypervisor, vm: Vm) -> None:
    async with Talk(vm) as talk:
        await hypervisor.close()
        await hypervisor.close()
        assert await talk.reader.read() == b""
    with pytest.raises(Unavailable):
        await vm.open_channel()


async def test_accelerator_is_named_with_a_reason(hypervisor: Hypervisor) -> None:
    accelerator = await hypervisor.accelerator()
    assert accelerator.name in ("kvm", "tcg")
    assert accelerator.reason
