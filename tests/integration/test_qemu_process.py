"""What a QEMU process may do, holds and leaves on the host."""

import asyncio
import fcntl
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PrerequisiteMissing,
    ResourceExhausted,
    Unavailable,
)
from app.core.units import GIB
from app.domain.vm import VmEndReason
from app.hypervisor.port import DiskSpec
from app.hypervisor.qemu.hypervisor import QemuHypervisor
from app.hypervisor.qemu.process import OOM_SCORE_ADJ
from tests.contract.guest_files import GuestFiles
from tests.contract.hypervisor_lab import Talk, make_image
from tests.contract.qemu_lab import QemuLab

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")


@pytest.fixture
async def lab(tmp_path: Path, guest_files: GuestFiles) -> AsyncIterator[QemuLab]:
    async with QemuLab(tmp_path, guest_files) as made:
        yield made


def proc(pid: int | None, name: str) -> Path:
    assert pid is not None
    return Path(f"/proc/{pid}/{name}")


def status_of(pid: int) -> dict[str, str]:
    lines = proc(pid, "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@needs_root
async def test_process_has_no_right_but_its_users(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    assert vm.pid is not None
    status = status_of(vm.pid)
    nobody = pwd.getpwnam("nobody")
    assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
    assert status["Groups"] == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(proc(vm.pid, "oom_score_adj").read_text()) == OOM_SCORE_ADJ
    assert os.getsid(vm.pid) == vm.pid
    async with Talk(vm) as talk:
        assert await talk.ask("echo unprivileged") == "unprivileged"


@needs_root
async def test_user_range_gives_each_vm_its_own_user(lab: QemuLab) -> None:
    engine = QemuHypervisor(run_root=lab.run_root, accelerator="tcg", user="2000000000-2000065535")
    try:
        vms = [await engine.create(lab.spec()) for _ in range(2)]
        owners = {proc(vm.pid, "fd").stat().st_uid for vm in vms}
        assert len(owners) == 2
        assert all(2000000000 <= owner <= 2000065535 for owner in owners)
    finally:
        await engine.close()


@needs_root
async def test_files_of_root_alone_reach_qemu(lab: QemuLab, guest_files: GuestFiles) -> None:
    kernel, initrd = lab.directory / "kernel", lab.directory / "initrd"
    kernel.write_bytes(guest_files.kernel.read_bytes())
    initrd.write_bytes(guest_files.initrd.read_bytes())
    image = make_image(lab.directory, "secret.img", text="secret")
    for path in (kernel, initrd, image):
        path.chmod(0o600)
    disk = DiskSpec("cold", image, read_only=False)
    vm = await lab.engine().create(replace(lab.spec(), kernel=kernel, initrd=initrd, disks=(disk,)))
    hot = make_image(lab.directory, "hot.img", text="hot")
    hot.chmod(0o600)
    await vm.attach_disk(DiskSpec("hot", hot, read_only=True))
    async with Talk(vm) as talk:
        await talk.wait_disks("cold", "hot")
        assert await talk.ask("read cold") == "block secret"
        assert await talk.ask("read hot") == "block hot"


@needs_root
@pytest.mark.parametrize(
    ("user", "kind"),
    [("no-such-user", PrerequisiteMissing), ("root", InvalidArgument), ("0-5", InvalidArgument)],
)
async def test_create_refuses_unfit_user(lab: QemuLab, user: str, kind: type[Exception]) -> None:
    engine = QemuHypervisor(run_root=lab.run_root, accelerator="tcg", user=user)
    with pytest.raises(kind):
        await engine.create(lab.spec())
    assert await lab.leftovers() == []


async def test_process_inherits_nothing_of_the_engine(lab: QemuLab) -> None:
    lock = os.open(lab.directory / "engine.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    inode = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
    try:
        vm = await lab.engine().create(lab.spec())
        links = [str(fd.readlink()) for fd in proc(vm.pid, "fd").iterdir()]
        assert inode not in links
        assert not [link for link in links if link.endswith("engine.lock")]
    finally:
        os.close(lock)
        listener.close()


async def test_engine_keeps_no_descriptor_of_a_discarded_vm(lab: QemuLab) -> None:
    engine = lab.engine()
    before = len(list(proc(os.getpid(), "fd").iterdir()))
    vm = await engine.create(lab.spec())
    async with Talk(vm) as talk:
        await talk.ask("echo up")
    await vm.stop(VmEndReason.STOPPED, grace_s=5)
    await vm.discard()
    assert len(list(proc(os.getpid(), "fd").iterdir())) == before
    assert await lab.leftovers() == []


async def test_process_has_no_network_device(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    arguments = proc(vm.pid, "cmdline").read_bytes().split(b"\0")
    assert b"-nodefaults" in arguments
    assert not [argument for argument in arguments if b"net" in argument]


async def test_deep_data_directory_works(tmp_path: Path, guest_files: GuestFiles) -> None:
    directory = tmp_path / ("d" * 90)
    directory.mkdir()
    async with QemuLab(directory, guest_files) as lab:
        engine = lab.engine()
        vm = await engine.create(lab.spec())
        assert len(str(lab.run_root / vm.spec.id / "channel.sock")) > 107
        async with Talk(vm) as talk:
            assert await talk.ask("echo deep") == "deep"
        await engine.close()
        [adopted] = await lab.engine().adopt()
        async with Talk(adopted) as talk:
            assert await talk.ask("echo adopted") == "adopted"


async def test_missing_qemu_says_how_to_get_it(lab: QemuLab) -> None:
    engine = QemuHypervisor(run_root=lab.run_root, accelerator="tcg", binary="qemu-not-there")
    with pytest.raises(PrerequisiteMissing) as caught:
        await engine.create(lab.spec())
    assert "apt-get install" in caught.value.advice
    assert await lab.leftovers() == []


async def test_qemu_refusing_says_its_words(lab: QemuLab) -> None:
    broken = lab.directory / "not-a-kernel"
    broken.write_bytes(b"not a kernel" * 1000)
    with pytest.raises(Unavailable, match=r"kernel"):
        await lab.engine().create(replace(lab.spec(), kernel=broken))
    assert await lab.leftovers() == []


async def test_too_much_memory_is_resource_exhausted(lab: QemuLab) -> None:
    with pytest.raises(ResourceExhausted, match="memory"):
        await lab.engine().create(replace(lab.spec(), memory_bytes=1_000_000 * GIB))
    assert await lab.leftovers() == []


async def test_image_that_is_a_directory_is_refused(lab: QemuLab) -> None:
    disk = DiskSpec("dir", lab.directory, read_only=True)
    with pytest.raises(InvalidArgument, match="neither"):
        await lab.engine().create(replace(lab.spec(), disks=(disk,)))
    assert await lab.leftovers() == []


async def test_stop_kills_a_process_that_does_not_answer(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGSTOP)
    vm_exit = await vm.stop(VmEndReason.SILENT, grace_s=0.2)
    assert vm_exit.reason is VmEndReason.SILENT
    assert not [name for name in await lab.leftovers() if name.startswith("vm ")]


async def test_stop_goes_on_when_its_caller_is_cancelled(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    stopping = asyncio.create_task(vm.stop(VmEndReason.STOPPED, grace_s=5))
    await asyncio.sleep(0)
    stopping.cancel()
    async with asyncio.timeout(10):
        assert (await vm.wait()).reason is VmEndReason.STOPPED


async def test_terminate_by_somebody_is_told(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGTERM)
    async with asyncio.timeout(10):
        vm_exit = await vm.wait()
    assert vm_exit.reason is VmEndReason.KILLED
    assert "15" in vm_exit.detail


async def test_crash_of_qemu_is_told(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGSEGV)
    async with asyncio.timeout(10):
        vm_exit = await vm.wait()
    assert vm_exit.reason is VmEndReason.FAILED
    assert "SIGSEGV" in vm_exit.detail


async def test_reset_by_guest_is_told_as_a_fault(lab: QemuLab) -> None:
    vm = await lab.engine().create(lab.spec())
    async with Talk(vm) as talk:
        talk.tell("reset")
        async with asyncio.timeout(10):
            assert (await vm.wait()).reason is VmEndReason.PANIC


async def test_attach_to_a_stopped_process_meets_the_deadline(
    lab: QemuLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.hypervisor.qemu.monitor.COMMAND_DEADLINE_S", 0.2)
    vm = await lab.engine().create(lab.spec())
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGSTOP)
    disk = DiskSpec("slow", make_image(lab.directory, "s.img"), read_only=True)
    try:
        with pytest.raises(DeadlineExceeded, match=vm.spec.id):
            await vm.attach_disk(disk)
    finally:
        os.kill(vm.pid, signal.SIGCONT)
