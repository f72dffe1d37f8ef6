"""Hosts and guests that misbehave: floods, full disks, no memory, accelerators that lie."""

import asyncio
import contextlib
import os
import signal
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.vm import VmEndReason
from app.hypervisor.port import (
    CONSOLE_HEAD_BYTES,
    CONSOLE_LIMIT_BYTES,
    DiskSpec,
    ProbeGuest,
)
from app.hypervisor.qemu.hypervisor import AcceleratorSetting, QemuHypervisor
from tests.contract.guest_files import GuestFiles
from tests.contract.hypervisor_lab import Talk
from tests.contract.qemu_lab import QemuLab

MEMORY_CGROUP = Path("/sys/fs/cgroup/memory")

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]


@pytest.fixture
async def lab(tmp_path: Path, guest_files: GuestFiles) -> AsyncIterator[QemuLab]:
    async with QemuLab(tmp_path, guest_files) as made:
        yield made


async def test_console_flood_stays_bounded_and_keeps_the_boot(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    async with Talk(vm) as talk:
        talk.tell("console 600000")
        async with asyncio.timeout(60):
            assert await talk.reader.readline() == b"printed\n"
        assert await talk.ask("echo alive") == "alive"
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    text = vm.console_path.read_text()
    assert CONSOLE_HEAD_BYTES < len(text) <= CONSOLE_LIMIT_BYTES
    assert "guest_echo: ready" in text[:CONSOLE_HEAD_BYTES]
    assert "bytes of output are not kept here" in text


async def test_console_flood_without_an_engine_takes_no_disk(lab: QemuLab) -> None:
    engine = lab.engine()
    vm = await engine.create(lab.spec())
    async with Talk(vm) as talk:
        talk.tell("console 300000")
        await talk.writer.drain()
        await engine.close()
    directory = vm.console_path.parent
    assert sum(path.stat().st_size for path in directory.iterdir()) < CONSOLE_LIMIT_BYTES
    [adopted] = await lab.engine().adopt()
    async with Talk(adopted) as talk:  # the guest had waited on its serial port
        assert await talk.ask("echo goes on") == "goes on"


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us mount")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_full_host_disk_holds_the_vm_until_there_is_space(
    lab: QemuLab, small_filesystem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.hypervisor.qemu.vm.RESUME_INTERVAL_S", 0.2)
    image = small_filesystem / "scratch.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    filler = small_filesystem / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(b"f" * 4 * MIB)
    vm = await lab.engine().create(lab.spec())
    await vm.attach_disk(DiskSpec("scratch", image, read_only=False))
    async with Talk(vm) as talk:
        await talk.wait_disks("scratch")
        talk.tell("write scratch kept")
        async with asyncio.timeout(20):
            while not await vm.is_paused():  # noqa: ASYNC110 -- a state without an event
                await asyncio.sleep(0.02)
        assert "disk is full" in vm.pause_reason
        filler.unlink()
        async with asyncio.timeout(20):
            assert await talk.reader.readline() == b"block written\n"
        assert vm.pause_reason == ""
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    assert image.read_bytes()[:4] == b"kept"


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup (v1 or v2) whose processes may use next to nothing."""
    base = MEMORY_CGROUP if MEMORY_CGROUP.is_dir() else MEMORY_CGROUP.parent
    directory = base / f"slipway-test-{new_vm_id()}"
    try:
        directory.mkdir()
    except OSError:
        pytest.skip("this machine gives us no memory cgroup")
    limits = [directory / name for name in ("memory.max", "memory.limit_in_bytes")]
    limit = next((path for path in limits if path.exists()), None)
    if limit is None:
        directory.rmdir()
        pytest.skip("this machine gives us no memory cgroup")
    limit.write_text(str(4 * MIB))
    yield directory
    for pid in (directory / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    directory.rmdir()


async def test_oom_kill_by_the_host_is_told(lab: QemuLab, small_cgroup: Path) -> None:
    vm = await lab.engine().create(lab.spec())
    (small_cgroup / "cgroup.procs").write_text(str(vm.pid))  # its boot touches far more
    async with asyncio.timeout(60):
        vm_exit = await vm.wait()
    assert vm_exit.reason is VmEndReason.OUT_OF_HOST_MEMORY


async def answers(reader: StreamReader, writer: StreamWriter) -> bool:
    writer.write(b"\necho alive\n")
    while line := await reader.readline():
        if line == b"alive\n":
            return True
    return False


async def stays_silent(reader: StreamReader, writer: StreamWriter) -> bool:
    await asyncio.Event().wait()
    return False


def probing(
    lab: QemuLab, probe: ProbeGuest | None, setting: AcceleratorSetting = "auto"
) -> QemuHypervisor:
    return QemuHypervisor(run_root=lab.run_root, probe_guest=probe, accelerator=setting)


@pytest.fixture
def probe_guest(guest_files: GuestFiles) -> ProbeGuest:
    return ProbeGuest(guest_files.kernel, guest_files.initrd, "quiet", "key-1", answers)


async def test_probe_boots_the_guest_and_remembers(lab: QemuLab, probe_guest: ProbeGuest) -> None:
    first = probing(lab, probe_guest)
    answer = await first.accelerator()
    assert answer.boot_ms is not None
    assert await lab.leftovers() == ["accelerator.json"]

    def refuse(*_: object) -> bool:
        raise AssertionError("probed again")

    again = probing(lab, ProbeGuest(**{**vars(probe_guest), "is_alive": refuse}))
    assert await again.accelerator() == answer


async def test_probe_is_repeated_for_another_guest(lab: QemuLab, probe_guest: ProbeGuest) -> None:
    await probing(lab, probe_guest).accelerator()
    probed = asyncio.Event()

    async def note(reader: StreamReader, writer: StreamWriter) -> bool:
        probed.set()
        return await answers(reader, writer)

    changed = ProbeGuest(**{**vars(probe_guest), "key": "key-2", "is_alive": note})
    await probing(lab, changed).accelerator()
    assert probed.is_set()


async def test_silent_probe_is_killed_at_its_deadline(
    lab: QemuLab, probe_guest: ProbeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KVM_DEADLINE_S", "TCG_DEADLINE_S"):
        monkeypatch.setattr(f"app.hypervisor.qemu.accelerator.{name}", 1.0)
    mute = ProbeGuest(**{**vars(probe_guest), "is_alive": stays_silent})
    async with asyncio.timeout(20):
        answer = await probing(lab, mute).accelerator()
    assert answer.name == "tcg"
    assert "within 1 s" in answer.reason
    assert await lab.leftovers() == ["accelerator.json"]


async def test_cancelled_probe_leaves_nothing(lab: QemuLab, probe_guest: ProbeGuest) -> None:
    reached = asyncio.Event()

    async def hang(reader: StreamReader, writer: StreamWriter) -> bool:
        reached.set()
        return await stays_silent(reader, writer)

    hanging = ProbeGuest(**{**vars(probe_guest), "is_alive": hang})
    asking = asyncio.create_task(probing(lab, hanging).accelerator())
    async with asyncio.timeout(20):
        await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await lab.leftovers() == []


async def test_probe_left_by_a_dead_engine_is_removed(lab: QemuLab) -> None:
    spec = lab.spec()
    engine = lab.engine()
    await engine.create(
        type(spec)(**{**vars(spec), "labels": {"slipway.probe": "kvm"}}),
    )
    await engine.close()
    assert await lab.engine().adopt() == []
    assert await lab.leftovers() == []


@pytest.mark.parametrize("setting", ["kvm", "tcg"])
async def test_forced_accelerator_is_not_probed(lab: QemuLab, setting: AcceleratorSetting) -> None:
    answer = await probing(lab, None, setting).accelerator()
    assert answer.name == setting
    assert "SLIPWAY_ACCELERATOR" in answer.reason


async def test_kvm_is_not_trusted_without_a_guest(lab: QemuLab) -> None:
    answer = await probing(lab, None).accelerator()
    assert answer.name == "tcg"
    assert "KVM" in answer.reason
