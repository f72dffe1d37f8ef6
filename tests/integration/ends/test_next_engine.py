"""An engine ends between the record of an end and the VM's end; the next one takes it up."""

import asyncio

import pytest

from app.core.errors import NotFound
from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.restart import parse_restart_policy
from app.services.recorder import LifeRecorder
from app.services.supervisor import Supervisor
from tests.integration.ends.lab import actions, is_unmounted, stopped
from tests.integration.engine_lab import (
    WHO,
    EngineLab,
    launch,
    shell,
    until,
    until_no_vm,
    until_state,
)


async def test_next_engine_switches_the_vm_of_an_ended_container_off(
    lab: EngineLab, gate: asyncio.Event
) -> None:
    async with lab.engine() as services:
        container = await stopped(services)
    assert list(lab.machine.vms) == [container.vm_id]
    async with lab.engine() as services:
        assert await services.containers.wait(container.id) == 7
        assert [vm.container_id for vm in await services.hosts.vms()] == [container.id]
        gate.set()
        await until_no_vm(services)
        assert is_unmounted(lab, container)
        assert (await actions(services, container.id)).count("die") == 1
        ended = await services.containers.get(container.id)
        assert (ended.state, ended.exit_code, ended.error) == (ContainerState.EXITED, 7, "")


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
async def test_next_engine_restarts_by_policy_after_the_vm_is_gone(
    lab: EngineLab, gate: asyncio.Event, policy: str
) -> None:
    config = shell("echo on; exit 3", restart_policy=parse_restart_policy(policy))
    async with lab.engine() as services:
        container = await launch(services, config)
        await until_state(services, container.id, ContainerState.RESTARTING)
    async with lab.engine() as services:
        assert list(lab.machine.vms) == [container.vm_id]
        gate.set()
        await until(services, container.id, lambda c: c.restart_count >= 2)
        assert is_unmounted(lab, container)
        await services.containers.remove(container.id, force=True, initiator=WHO)
        assert not lab.machine.vms


async def test_policy_always_starts_what_was_stopped_after_its_vm_is_gone(
    lab: EngineLab, gate: asyncio.Event
) -> None:
    config = ContainerConfig(
        image="busybox", command=("trap",), restart_policy=parse_restart_policy("always")
    )
    async with lab.engine() as services:
        container = await stopped(services, config)
    async with lab.engine() as services:
        assert list(lab.machine.vms) == [container.vm_id]
        gate.set()
        again = await until_state(services, container.id, ContainerState.RUNNING)
        assert list(lab.machine.vms) == [again.vm_id]
        assert is_unmounted(lab, container)
        await services.containers.kill(container.id, initiator=WHO)


async def test_next_engine_removes_what_was_to_be_removed(
    lab: EngineLab, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed_before(_self: Supervisor, *_: object) -> None:
        return

    with monkeypatch.context() as patch:
        patch.setattr(Supervisor, "_remove_after", killed_before)
        async with lab.engine() as services:
            container = await launch(services, shell("exit 0", auto_remove=True))
            await until_state(services, container.id, ContainerState.EXITED)
    assert list(lab.machine.vms) == [container.vm_id]
    async with lab.engine() as services:
        with pytest.raises(NotFound):
            await until(services, container.id, lambda _: False)
        assert not lab.machine.vms
    assert not gate.is_set()


async def test_start_whose_engine_was_killed_does_not_take_the_vm_before_for_its_own(
    lab: EngineLab, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(_self: LifeRecorder, *_: object) -> None:
        raise asyncio.CancelledError

    async with lab.engine() as services:
        container = await stopped(services)
        starting = asyncio.ensure_future(services.containers.start(container.id, initiator=WHO))
        await until_state(services, container.id, ContainerState.STARTING)
        monkeypatch.setattr(LifeRecorder, "start_failed", killed)
    await asyncio.wait({starting})
    starting.cancel()
    monkeypatch.undo()
    gate.set()
    async with lab.engine() as services:
        after = await until_state(services, container.id, ContainerState.EXITED)
        assert (after.exit_code, "while the container was starting" in after.error) == (128, True)
        assert is_unmounted(lab, container)
