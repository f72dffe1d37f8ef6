"""Templates and clones, by every hypervisor alike."""

import asyncio
import mmap
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Conflict, CorruptData, InvalidArgument, NotFound
from app.core.ids import new_vm_id
from app.domain.vm import VmEndReason
from app.hypervisor.port import DiskSpec, Hypervisor, Template, Vm, VmSpec
from app.hypervisor.qemu.saved import SavedFiles
from app.hypervisor.qemu.template import QemuTemplate
from tests.contract.hypervisor_lab import MIB, Lab, Talk, make_image

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def template(lab: Lab, hypervisor: Hypervisor) -> AsyncIterator[Template]:
    vm = await hypervisor.create(replace(lab.spec(), for_template=True))
    async with Talk(vm) as talk:
        assert await talk.ask("echo up") == "up"
    saved = await hypervisor.save_template(vm)
    yield saved
    await saved.close()


def clone_spec(template: Template, **changes: Any) -> VmSpec:
    fresh: dict[str, Any] = {
        "id": new_vm_id(),
        "for_template": False,
        "labels": {"container": "abc"},
    }
    return replace(template.spec, **fresh | changes)


async def end(*vms: Vm) -> None:
    for vm in vms:
        await vm.stop(VmEndReason.STOPPED, grace_s=5)
        await vm.discard()


async def test_saved_vm_is_gone_and_clones_answer(
    hypervisor: Hypervisor, template: Template
) -> None:
    assert await hypervisor.adopt() == []
    assert template.memory_used_bytes > 0
    one = await hypervisor.clone(template, clone_spec(template))
    other = await hypervisor.clone(template, clone_spec(template))
    for vm in (one, other):
        assert (vm.pause_reason, await vm.is_paused()) == ("", False)
        async with Talk(vm) as talk:
            assert await talk.ask("echo here") == "here"
    await end(one, other)


async def test_disks_and_memory_are_there_when_the_clone_runs_on(
    hypervisor: Hypervisor, template: Template, tmp_path: Path
) -> None:
    image = make_image(tmp_path, "layer", text="the layer")
    memory_bytes = template.spec.memory_bytes + hypervisor.capabilities.memory_block_bytes
    spec = clone_spec(
        template, memory_bytes=memory_bytes, disks=(DiskSpec("layer-0", image, read_only=True),)
    )
    vm = await hypervisor.clone(template, spec)
    assert vm.spec == spec
    async with Talk(vm) as talk:
        assert (await talk.wait_disks("layer-0"))["layer-0"][1] == "ro"
        assert await talk.ask("read layer-0") == "block the layer"
    await vm.detach_disk("layer-0")
    await end(vm)


@pytest.mark.parametrize(
    ("serial", "read_only"), [("scratch", False), ("layer-0", True), ("layer-99", True)]
)
async def test_disks_come_and_go_in_a_clone(
    hypervisor: Hypervisor, template: Template, tmp_path: Path, serial: str, read_only: bool
) -> None:
    images = [make_image(tmp_path, text, text=text) for text in ("first", "second")]
    first, second = (DiskSpec(serial, image, read_only=read_only) for image in images)
    vm = await hypervisor.clone(template, clone_spec(template))
    async with Talk(vm) as talk:
        await talk.wait_disks()
        for disk in (first, second, first):
            await vm.attach_disk(disk)
            await talk.wait_disks(serial)
            assert await talk.ask(f"read {serial}") == f"block {disk.path.name}"
            with pytest.raises(Conflict, match=serial):
                await vm.attach_disk(disk)
            written = await talk.ask(f"write {serial} {disk.path.name}, again")
            assert (written == "block written") is not read_only
            await vm.detach_disk(serial)
            await talk.wait_disks()
            disk.path.write_bytes(disk.path.name.encode().ljust(MIB, b"\0"))
        with pytest.raises(NotFound):
            await vm.detach_disk(serial)
    await end(vm)


@pytest.mark.parametrize("serial", ["scratch", "other"])
async def test_writable_image_is_in_one_clone_only(
    hypervisor: Hypervisor, template: Template, tmp_path: Path, serial: str
) -> None:
    disk = DiskSpec(serial, make_image(tmp_path, "image", text="mine"), read_only=False)
    owner = await hypervisor.clone(template, clone_spec(template, disks=(disk,)))
    with pytest.raises(Conflict):
        await hypervisor.clone(template, clone_spec(template, disks=(disk,)))
    other = await hypervisor.clone(template, clone_spec(template))
    with pytest.raises(Conflict):
        await other.attach_disk(disk)
    await owner.detach_disk(serial)
    await other.attach_disk(disk)
    async with Talk(other) as talk:
        await talk.wait_disks(serial)
        assert await talk.ask(f"read {serial}") == "block mine"
    await end(owner, other)


async def test_clone_of_another_shape_is_refused(
    hypervisor: Hypervisor, template: Template
) -> None:
    memory_bytes = template.spec.memory_bytes
    for changes in (
        {"vcpus": 2},
        {"cmdline": "other"},
        {"memory_bytes": memory_bytes - 2 * MIB},
        {"memory_bytes": memory_bytes + 2 * MIB},
        {"for_template": True},
    ):
        with pytest.raises(InvalidArgument):
            await hypervisor.clone(template, clone_spec(template, **changes))
    assert await hypervisor.adopt() == []


async def test_closed_template_makes_no_clones(hypervisor: Hypervisor, template: Template) -> None:
    vm = await hypervisor.clone(template, clone_spec(template))
    await template.close()
    with pytest.raises(CorruptData):
        await hypervisor.clone(template, clone_spec(template))
    async with Talk(vm) as talk:
        assert await talk.ask("echo goes on") == "goes on"
    await end(vm)


async def test_only_what_was_made_for_it_is_saved(lab: Lab, hypervisor: Hypervisor) -> None:
    vm = await hypervisor.create(lab.spec())
    with pytest.raises(InvalidArgument):
        await hypervisor.save_template(vm)
    async with Talk(vm) as talk:
        assert await talk.ask("echo here") == "here"
    await end(vm)


async def test_new_labels_are_found_by_the_next_engine(
    lab: Lab, hypervisor: Hypervisor, template: Template
) -> None:
    vm = await hypervisor.clone(template, clone_spec(template, labels={"pool": "1"}))
    await vm.relabel({"container": "claimed"})
    await hypervisor.close()
    engine = lab.engine()
    [adopted] = await engine.adopt()
    assert adopted.spec.labels == {"container": "claimed"}
    async with Talk(adopted) as talk:
        assert await talk.ask("echo still here") == "still here"
    await end(adopted)


async def test_cancelled_clone_leaves_nothing(
    lab: Lab, hypervisor: Hypervisor, template: Template
) -> None:
    spec = clone_spec(template)
    cloning = asyncio.create_task(hypervisor.clone(template, spec))
    async with asyncio.timeout(20):
        while not cloning.done():
            if f"vm {spec.id}" in await lab.leftovers():
                break
            await asyncio.sleep(0)
    cloning.cancel()
    await asyncio.wait({cloning})
    if not cloning.cancelled():  # the fake's may be whole before anybody sees it
        await end(cloning.result())
    assert not [name for name in await lab.leftovers() if spec.id in name]


@pytest.mark.qemu
@pytest.mark.parametrize("lab", ["qemu"], indirect=True)
async def test_nobody_with_a_descriptor_can_change_the_template(
    hypervisor: Hypervisor, template: Template
) -> None:
    vm = await hypervisor.clone(template, clone_spec(template))
    files = await asyncio.to_thread(template_files, vm)
    assert len(files) >= 2
    for path in files:
        fd = os.open(path, os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
            with pytest.raises(PermissionError):
                mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
            with pytest.raises(PermissionError):
                os.posix_fallocate(fd, 0, 1 << 40)
        finally:
            os.close(fd)
    await end(vm)


@pytest.mark.qemu
@pytest.mark.parametrize("lab", ["qemu"], indirect=True)
async def test_state_that_can_not_be_restored_is_corrupt_data(
    lab: Lab, hypervisor: Hypervisor, template: Template
) -> None:
    assert isinstance(template, QemuTemplate)
    files = SavedFiles.make(template.spec.memory_bytes)
    os.write(files.state_fd, b"no migration stream")
    files.seal()
    damaged = QemuTemplate(template.spec, template.key, files, lambda _id: None)
    spec = clone_spec(template)
    with pytest.raises(CorruptData, match="restored"):
        await hypervisor.clone(damaged, spec)
    await damaged.close()
    assert not [name for name in await lab.leftovers() if spec.id in name]


def template_files(vm: Vm) -> list[Path]:
    """What a clone's process could open of its template."""
    names = ("/memfd:slipway-template", "/memfd:slipway-state")
    entries = Path(f"/proc/{vm.pid}/fd").iterdir()
    return [entry for entry in entries if str(entry.readlink()).startswith(names)]
