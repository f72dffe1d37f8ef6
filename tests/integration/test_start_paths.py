"""By which path a container comes to its VM, over the fake machine."""

import asyncio
import os

import pytest

from app.core.errors import CorruptData, SlipwayError, Unavailable
from app.domain.container import ContainerState
from app.domain.sizing import BASE_MEMORY_BYTES
from app.domain.vm import StartPath
from app.guest.protocol import Op
from app.hypervisor.port import Template, Vm, VmSpec
from app.services.templates import TemplateState
from tests.integration.engine_lab import (
    EngineLab,
    launch,
    shell,
    start_path,
    until_state,
    until_template,
)


@pytest.fixture
def cloning_lab(lab: EngineLab) -> EngineLab:
    """A lab whose hypervisor has templates; nothing waits in the pool."""
    lab.can_clone = True
    lab.settings = lab.settings.model_copy(update={"pool_size": "0"})
    return lab


async def test_start_is_a_clone_once_there_is_a_template(cloning_lab: EngineLab) -> None:
    async with cloning_lab.engine() as services:
        await until_template(services, TemplateState.READY)
        container = await launch(services, shell("while true; do sleep 1; done"))
        [vm] = await services.hosts.vms()
        assert vm.start_path is StartPath.CLONE
        assert [stage.name for stage in container.boot_stages][:2] == ["clone", "mount"]
        guest = cloning_lab.guest_of(container)
        assert guest.runs[:2] == [Op.SEED_ENTROPY, Op.SET_CLOCK]
        assert vm.memory_bytes > BASE_MEMORY_BYTES
        assert guest.machine.memory_bytes == vm.memory_bytes
        await services.containers.kill(container.id, initiator="tester")


async def test_engine_without_templates_boots(cloning_lab: EngineLab) -> None:
    cloning_lab.settings = cloning_lab.settings.model_copy(update={"templates": False})
    async with cloning_lab.engine() as services:
        container = await launch(services, shell("exit 0"))
        await until_state(services, container.id, ContainerState.EXITED)
        assert await start_path(services, container) == "boot"
        assert (await services.hosts.host()).templates == ()


@pytest.mark.parametrize(
    ("error", "is_rebuilt"),
    [(CorruptData("torn"), True), (Unavailable("QEMU refused"), False)],
    ids=["corrupt", "refused"],
)
async def test_start_boots_when_no_clone_can_be_made(
    cloning_lab: EngineLab,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    is_rebuilt: bool,
) -> None:
    used: list[Template] = []

    async def fail(template: Template, _spec: VmSpec) -> Vm:
        used.append(template)
        raise error

    async with cloning_lab.engine() as services:
        await until_template(services, TemplateState.READY)
        assert cloning_lab.hypervisor is not None
        with monkeypatch.context() as patched:
            patched.setattr(cloning_lab.hypervisor, "clone", fail)
            container = await launch(services, shell("exit 7"))
            ended = await until_state(services, container.id, ContainerState.EXITED)
        assert ended.exit_code == 7
        assert await start_path(services, container) == "boot"
        await until_template(services, TemplateState.READY)
        told = await services.events.list(limit=100)
        failures = [one.attributes["error"] for one in told if one.action == "template-failed"]
        assert failures == (["torn"] if is_rebuilt else [])
        again = await launch(services, shell("exit 0"))
        await until_state(services, again.id, ContainerState.EXITED)
        assert await start_path(services, again) == "clone"


async def test_start_boots_when_its_clone_never_answers(
    cloning_lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloning_lab.settings = cloning_lab.settings.model_copy(update={"boot_timeout_s": 0.5})
    async with cloning_lab.engine() as services:
        await until_template(services, TemplateState.READY)
        assert cloning_lab.hypervisor is not None
        clone = cloning_lab.hypervisor.clone

        async def clone_silently(template: Template, spec: VmSpec) -> Vm:
            cloning_lab.machine.faults.silent_guest = True
            try:
                return await clone(template, spec)
            finally:
                cloning_lab.machine.faults.silent_guest = False

        monkeypatch.setattr(cloning_lab.hypervisor, "clone", clone_silently)
        container = await launch(services, shell("while true; do sleep 1; done"))
        assert list(cloning_lab.machine.vms) == [container.vm_id]
        assert await start_path(services, container) == "boot"
        await services.containers.kill(container.id, initiator="tester")


async def test_engine_that_ends_takes_its_templates_along(cloning_lab: EngineLab) -> None:
    async with cloning_lab.engine() as services:
        await until_template(services, TemplateState.READY)
    assert not cloning_lab.machine.vms
    assert not await asyncio.to_thread(os.listdir, cloning_lab.machine.run_root)


@pytest.mark.parametrize("crashes", [1, 2])
async def test_start_boots_once_more_when_the_hypervisor_crashes(
    cloning_lab: EngineLab, monkeypatch: pytest.MonkeyPatch, crashes: int
) -> None:
    cloning_lab.settings = cloning_lab.settings.model_copy(update={"templates": False})
    async with cloning_lab.engine() as services:
        assert cloning_lab.hypervisor is not None
        create = cloning_lab.hypervisor.create
        made: list[str] = []

        async def create_and_crash(spec: VmSpec) -> Vm:
            cloning_lab.machine.faults.silent_guest = len(made) < crashes
            vm = await create(spec)
            made.append(spec.id)
            if len(made) <= crashes:
                await cloning_lab.machine.fail(spec.id, "QEMU crashed (SIGSEGV)")
            return vm

        monkeypatch.setattr(cloning_lab.hypervisor, "create", create_and_crash)
        if crashes == 1:
            container = await launch(services, shell("exit 7"))
            ended = await until_state(services, container.id, ContainerState.EXITED)
            assert ended.exit_code == 7
        else:
            with pytest.raises(SlipwayError, match="SIGSEGV"):
                await launch(services, shell("exit 7"))
        assert len(made) == 2
