"""VMs outlive the engine that made them: adoption after the worst ends."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.domain.vm import VmEndReason
from app.hypervisor.port import Vm, VmExit
from app.hypervisor.qemu.rundir import RunDirectory
from tests.contract.guest_files import GuestFiles
from tests.contract.hypervisor_lab import Talk
from tests.contract.qemu_lab import QemuLab

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]


@pytest.fixture
async def lab(tmp_path: Path, guest_files: GuestFiles) -> AsyncIterator[QemuLab]:
    async with QemuLab(tmp_path, guest_files) as made:
        yield made


@pytest.fixture
async def orphan(lab: QemuLab, guest_files: GuestFiles) -> str:
    """Id of a VM whose engine was killed with the channel full of bytes."""
    engine = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.qemu_engine",
        str(lab.directory),
        str(guest_files.kernel),
        str(guest_files.initrd),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert engine.stdout is not None
    async with asyncio.timeout(60):
        vm_id = (await engine.stdout.readline()).decode().strip()
    engine.send_signal(signal.SIGKILL)
    await engine.wait()
    assert vm_id
    return vm_id


async def ended(vm: Vm) -> VmExit:
    async with asyncio.timeout(20):
        return await vm.wait()


async def test_vm_survives_kill_of_its_engine(lab: QemuLab, orphan: str) -> None:
    engine = lab.engine()
    [vm] = await engine.adopt()
    assert vm.spec.id == orphan
    assert vm.spec.labels == {"container": "abc"}
    async with Talk(vm) as talk:
        assert await talk.ask("echo survived") == "survived"
    assert "guest_echo: ready" in vm.console_path.read_text()
    vm_exit = await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert vm_exit.reason is VmEndReason.STOPPED
    await vm.discard()
    assert await lab.leftovers() == []


async def test_end_of_a_vm_that_is_no_child_is_seen(lab: QemuLab, orphan: str) -> None:
    [vm] = await lab.engine().adopt()
    assert vm.spec.id == orphan
    await lab.kill(vm)
    vm_exit = await ended(vm)
    assert vm_exit.reason is VmEndReason.KILLED
    assert "most likely" in vm_exit.detail  # the exit status of another's child is not known


async def test_vm_without_process_record_is_found_by_its_lock(lab: QemuLab, orphan: str) -> None:
    (lab.run_root / orphan / "process.json").unlink()
    [vm] = await lab.engine().adopt()
    async with Talk(vm) as talk:
        assert await talk.ask("echo found") == "found"
    assert vm.started_at_ns > 0


async def test_record_of_another_process_is_not_believed(lab: QemuLab, orphan: str) -> None:
    directory = RunDirectory(lab.run_root / orphan)
    record = directory.read_process()
    assert record is not None
    real_pid = record.pid
    # Process 1 lives and is somebody else's: as if the id had come again after a reboot.
    directory.write_process(type(record)(1, record.start_ticks, record.started_at_ns))
    [vm] = await lab.engine().adopt()
    assert vm.pid == real_pid


async def test_vm_with_damaged_record_is_removed(lab: QemuLab, orphan: str) -> None:
    (lab.run_root / orphan / "spec.json").write_text("{")
    assert await lab.engine().adopt() == []
    assert await lab.leftovers() == []


async def test_remains_of_a_create_that_died_early_are_removed(lab: QemuLab) -> None:
    RunDirectory.create(lab.run_root / "0123456789ab")
    assert await lab.engine().adopt() == []
    assert await lab.leftovers() == []


async def test_foreign_names_in_the_run_root_are_left_alone(lab: QemuLab) -> None:
    (lab.run_root / "keep").mkdir(parents=True)
    assert await lab.engine().adopt() == []
    assert await lab.leftovers() == ["keep"]


async def test_adopt_does_not_hang_on_a_taken_monitor(lab: QemuLab, orphan: str) -> None:
    directory = RunDirectory(lab.run_root / orphan)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(directory.address("qmp.sock"))
        await asyncio.to_thread(other.recv, 100)  # greeted: QEMU serves this client now
        engine = lab.engine()
        async with asyncio.timeout(10):
            [vm] = await engine.adopt()
        with pytest.raises(Unavailable):
            await vm.detach_disk("any")
        async with Talk(vm) as talk:  # the channel needs no monitor
            assert await talk.ask("echo here") == "here"
        vm_exit = await vm.stop(VmEndReason.STOPPED, grace_s=0.2)
    assert vm_exit.reason is VmEndReason.STOPPED
    directory.close()


async def test_console_written_while_no_engine_ran_is_kept(
    lab: QemuLab, guest_files: GuestFiles
) -> None:
    engine = lab.engine()
    vm = await engine.create(lab.spec())
    async with Talk(vm) as talk:
        talk.tell("console 20000")
        await talk.writer.drain()
        await engine.close()
    [adopted] = await lab.engine().adopt()
    async with Talk(adopted) as talk:
        await talk.ask("echo printed meanwhile")
    await adopted.stop(VmEndReason.STOPPED, grace_s=5)
    assert adopted.console_path.read_bytes().count(b"x") == 20000 - 20000 // 4096
