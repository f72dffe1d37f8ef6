"""Service VMs over the fake machine: one for a container, gone in time, and guests that lie."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.core.errors import CorruptData, GuestFailed, NotFound, SlipwayError, Unavailable
from app.domain.container import Container, ContainerState
from app.guest.fake_process import FakeProcess
from app.guest.fake_tree import FakeTree
from app.guest.fields import Fields
from app.guest.protocol import ChangeKind, Op, Tag
from app.guest.tree_records import TreeEntry, encode_tree_record
from app.services import service_vm
from app.services.bundle import Services
from app.services.commits import CommitRequest
from app.services.layer_view import Change
from tests.integration.engine_lab import DEADLINE_S, WHO, EngineLab, shell, until_state

FILE = 0o100644


async def made(services: Services, script: str = "true") -> Container:
    return await services.containers.create(shell(script), name="box", initiator=WHO)


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def put(services: Services, files: dict[str, bytes]) -> None:
    await services.files.write("box", "/tmp", pieces(archive(files)))


async def read(services: Services, path: str) -> bytes:
    async with services.files.reading("box", path) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def export(services: Services) -> bytes:
    async with services.files.exporting("box") as chunks:
        return b"".join([chunk async for chunk in chunks])


async def until_no_vm(lab: EngineLab) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while lab.machine.vms:
            for vm in list(lab.machine.vms.values()):
                await vm.ended.wait()
            await asyncio.sleep(0)


async def test_questions_share_a_vm_that_goes_when_idle(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab.engine() as services:
        await made(services)
        await put(services, {"f": b"x"})
        await read(services, "/tmp/f")
        assert await services.files.changes("box") == [
            Change("/tmp", ChangeKind.MODIFIED),
            Change("/tmp/f", ChangeKind.ADDED),
        ]
        [vm] = lab.machine.vms.values()
        assert vm.spec.labels.keys() == {"service"}
        monkeypatch.setattr(service_vm, "IDLE_S", 0.0)
        monkeypatch.setattr(service_vm, "IDLE_CHECK_S", 0.01)
        await services.files.stat("box", "/tmp")
        await services.containers.remove("box", initiator=WHO)
        await until_no_vm(lab)
        await made(services)
        await services.files.stat("box", "/tmp")
        await until_no_vm(lab)


async def test_many_questions_at_once_share_a_vm(lab: EngineLab) -> None:
    async with lab.engine() as services:
        await made(services)
        await put(services, {str(n): b"x" * n for n in range(20)})
        found = await asyncio.gather(*(read(services, f"/tmp/{n}") for n in range(20)))
        assert all(found)
        assert len(lab.guests) == 1


async def test_the_engines_end_ends_service_vms(lab: EngineLab) -> None:
    async with lab.engine() as services:
        await made(services)
        await put(services, {"f": b"x"})
        assert lab.machine.vms
    assert not lab.machine.vms
    async with lab.engine() as services:
        assert b"f" in await read(services, "/tmp")


async def test_a_start_does_not_wait_for_an_upload(lab: EngineLab) -> None:
    async with lab.engine() as services:
        container = await made(services, "sleep 1000")
        began = asyncio.Event()

        async def stalls() -> AsyncIterator[bytes]:
            yield archive({"f": b"x" * 100_000})[:5000]
            began.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(services.files.write("box", "/tmp", stalls()))
        await began.wait()
        async with asyncio.timeout(DEADLINE_S):
            await services.containers.start(container.id, initiator=WHO)
        assert len(lab.machine.vms) == 1
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        await services.containers.kill("box", signal="SIGKILL", initiator=WHO)


async def test_files_of_a_running_container_need_no_further_vm(lab: EngineLab) -> None:
    async with lab.engine() as services:
        container = await made(services, "sleep 1000")
        await services.containers.start(container.id, initiator=WHO)
        await put(services, {"f": b"x"})
        assert len(lab.machine.vms) == 1
        await services.containers.kill("box", signal="SIGKILL", initiator=WHO)
        assert b"x" in await read(services, "/tmp/f")
        await until_state(services, container.id, ContainerState.EXITED)


async def test_a_vm_that_does_not_come_up_is_told_and_tried_again(lab: EngineLab) -> None:
    async with lab.engine() as services:
        await made(services)
        lab.machine.faults.create_error = Unavailable("no more of them")
        with pytest.raises(Unavailable, match="no more"):
            await services.files.stat("box", "/tmp")
        lab.machine.faults.create_error = None
        assert (await services.files.stat("box", "/tmp")).is_directory
        with pytest.raises(NotFound):
            await services.files.stat("box", "/nope")


async def test_a_vm_that_dies_meanwhile_is_told(lab: EngineLab) -> None:
    async with lab.engine() as services:
        await made(services)
        await services.files.stat("box", "/tmp")
        [vm_id] = lab.machine.vms

        async def dies() -> AsyncIterator[bytes]:
            yield archive({"f": b"x" * 100_000})[:5000]
            await lab.machine.kill(vm_id)
            yield archive({"f": b"x" * 100_000})[5000:]

        with pytest.raises(SlipwayError):
            await services.files.write("box", "/tmp", dies())
        assert (await services.files.stat("box", "/tmp")).is_directory


Lie = Callable[[FakeProcess], Awaitable[None]]


async def _garbage(process: FakeProcess) -> None:
    await process.write(b"this is no tree at all")


async def _nothing(_process: FakeProcess) -> None:
    return


async def _leads_out(process: FakeProcess) -> None:
    await process.write(encode_tree_record(TreeEntry(b"../../etc/passwd", FILE)))


async def _no_end(process: FakeProcess) -> None:
    await process.write(encode_tree_record(TreeEntry(b"f", FILE)))


@pytest.mark.parametrize("lie", [_garbage, _nothing, _leads_out, _no_end])
async def test_a_guest_that_lies_is_found_out(
    lab: EngineLab, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(_tree: FakeTree, fields: Fields) -> Callable[[FakeProcess], Awaitable[int]]:
        async def run(process: FakeProcess) -> int:
            if fields.number(Tag.OP) == Op.WRITE_TREE:
                await process.read()
            await lie(process)
            return 0

        return run

    monkeypatch.setattr(FakeTree, "program", program)
    async with lab.engine() as services:
        await made(services)
        images = await services.images.list()
        with pytest.raises((CorruptData, GuestFailed)):
            await services.files.stat("box", "/tmp")
        with pytest.raises((CorruptData, GuestFailed)):
            await put(services, {"f": b"x"})
        with pytest.raises((CorruptData, GuestFailed)):
            await services.files.changes("box")
        with pytest.raises((CorruptData, GuestFailed)):
            await export(services)
        with pytest.raises((CorruptData, GuestFailed)):
            await services.commits.commit("box", CommitRequest(reference="made"), initiator=WHO)
        assert await services.images.list() == images
