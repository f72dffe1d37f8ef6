"""An end is told once it is recorded; the VM goes afterwards, and what follows waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.core.errors import Conflict, NotFound, ResourceExhausted
from app.domain.container import Container, ContainerState
from app.domain.exec import ExecConfig
from app.domain.restart import parse_restart_policy
from app.domain.vm import VmState
from app.logs.store import LogStore
from app.services.bundle import Services
from app.services.ending import EXIT_CODE_KILLED
from app.services.exec import ExecEnd, ExecOutput
from app.services.recorder import LifeRecorder
from tests.integration.ends.lab import TRAP, actions, is_unmounted, stopped
from tests.integration.engine_lab import (
    DEADLINE_S,
    WHO,
    EngineLab,
    launch,
    log_text,
    shell,
    until,
    until_no_vm,
    until_state,
)


async def test_end_is_told_before_the_vm_is_gone(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    container = await stopped(services)
    ended = await services.containers.get(container.id)
    assert (ended.state, ended.exit_code, ended.vm_id) == (ContainerState.EXITED, 7, None)
    assert (await actions(services, container.id))[-3:] == ["stop", "die", "stopped"]
    assert [(vm.id, vm.state) for vm in await services.hosts.vms()] == [
        (container.vm_id, VmState.STOPPING)
    ]
    gate.set()
    await until_no_vm(services)
    assert not lab.machine.vms
    assert is_unmounted(lab, container)


async def test_container_whose_vm_is_on_its_way_out_does_not_run(
    services: Services, gate: asyncio.Event
) -> None:
    container = await stopped(services)
    with pytest.raises(Conflict, match="is not running"):
        async with services.exec.exec(container.id, ExecConfig(("true",))):
            pass
    with pytest.raises(Conflict, match="is not running"):
        await services.containers.kill(container.id, signal="SIGHUP", initiator=WHO)
    assert await log_text(services, container.id) == ["ready", "terminated"]
    assert b"booting" in await services.logs.console(container.id)
    assert services.stats.latest(container.id) is None
    gate.set()


async def test_command_whose_vm_goes_does_not_wait_for_ever(
    services: Services, lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.guest.fake.FakeGuest.process_exited", lambda *_: None)
    container = await launch(services, TRAP)
    async with asyncio.timeout(DEADLINE_S):
        async with services.exec.exec(container.id, ExecConfig(("echo", "hi"))) as output:
            piece = await anext(output)
            assert isinstance(piece, ExecOutput)
            waiting = asyncio.ensure_future(anext(output))  # for an event that never comes
            await lab.machine.kill(container.vm_id or "")
            assert await waiting == ExecEnd(EXIT_CODE_KILLED)


async def test_start_waits_for_the_vm_of_the_run_before(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    first = await stopped(services)
    async with asyncio.TaskGroup() as group:
        group.create_task(services.containers.start(first.id, initiator=WHO))
        await until_state(services, first.id, ContainerState.STARTING)
        assert list(lab.machine.vms) == [first.vm_id]
        assert [vm.state for vm in await services.hosts.vms()] == [VmState.STOPPING]
        gate.set()
    again = await services.containers.get(first.id)
    assert again.state is ContainerState.RUNNING
    assert list(lab.machine.vms) == [again.vm_id]
    assert is_unmounted(lab, first)
    await services.containers.kill(first.id, initiator=WHO)


async def test_start_that_waits_can_be_stopped(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    container = await stopped(services)
    starting = asyncio.ensure_future(services.containers.start(container.id, initiator=WHO))
    await until_state(services, container.id, ContainerState.STARTING)
    await services.containers.stop(container.id, initiator=WHO)
    with pytest.raises(Conflict, match="stopped before"):
        await starting
    ended = await services.containers.get(container.id)
    assert (ended.state, ended.error) == (ContainerState.EXITED, "It was stopped before it started")
    assert list(lab.machine.vms) == [container.vm_id]
    async with asyncio.TaskGroup() as group:  # behind both of the lives before
        group.create_task(services.containers.start(container.id, initiator=WHO))
        await until_state(services, container.id, ContainerState.STARTING)
        gate.set()
    await services.containers.kill(container.id, initiator=WHO)


async def test_start_that_waits_can_be_removed(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    container = await stopped(services)
    starting = asyncio.ensure_future(services.containers.start(container.id, initiator=WHO))
    await until_state(services, container.id, ContainerState.STARTING)
    await services.containers.remove(container.id, force=True, initiator=WHO)
    with pytest.raises(Conflict):
        await starting
    assert not lab.machine.vms
    assert not gate.is_set()


async def test_engine_that_ends_while_a_start_waits(lab: EngineLab, gate: asyncio.Event) -> None:
    async with lab.engine() as services:
        container = await stopped(services)
        starting = asyncio.ensure_future(services.containers.start(container.id, initiator=WHO))
        await until_state(services, container.id, ContainerState.STARTING)
    await asyncio.wait({starting})
    starting.cancel()
    assert list(lab.machine.vms) == [container.vm_id]
    gate.set()
    async with lab.engine() as services:
        after = await services.containers.get(container.id)
        assert (after.state, "stopped while" in after.error) == (ContainerState.EXITED, True)
        await services.containers.start(container.id, initiator=WHO)
        assert container.vm_id not in lab.machine.vms
        assert is_unmounted(lab, container)
        await services.containers.kill(container.id, initiator=WHO)


async def test_remove_does_not_wait_for_the_guest(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    container = await stopped(services)
    await services.containers.remove(container.id, initiator=WHO)
    assert not lab.machine.vms
    assert not list((lab.settings.data_dir / "scratch").glob(f"*{container.id}*"))
    assert not await services.hosts.vms()
    assert not is_unmounted(lab, container)


async def test_auto_remove_does_not_wait_for_the_guest(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    container = await launch(services, shell("exit 0", auto_remove=True))
    with pytest.raises(NotFound):
        await until(services, container.id, lambda _: False)
    assert not lab.machine.vms
    assert not gate.is_set()


async def test_restart_by_policy_is_told_at_once_and_waits(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    policy = parse_restart_policy("on-failure:1")
    container = await launch(services, shell("echo try; exit 4", restart_policy=policy))
    waiting = await until_state(services, container.id, ContainerState.RESTARTING)
    assert waiting.exit_code == 4
    assert len(lab.machine.vms) == 1
    gate.set()
    await until_state(services, container.id, ContainerState.EXITED)
    assert await log_text(services, container.id) == ["try"] * 2
    await until_no_vm(services)
    assert is_unmounted(lab, container)


async def test_stop_ends_a_restart_that_waits_for_the_vm(
    services: Services, lab: EngineLab, gate: asyncio.Event
) -> None:
    config = shell("exit 4", restart_policy=parse_restart_policy("always"))
    container = await launch(services, config)
    await until_state(services, container.id, ContainerState.RESTARTING)
    vms = list(lab.machine.vms)
    await services.containers.stop(container.id, initiator=WHO)
    assert (await services.containers.get(container.id)).state is ContainerState.EXITED
    assert len(vms) == 1
    assert list(lab.machine.vms) == vms
    gate.set()
    await until_no_vm(services)
    assert (await actions(services, container.id)).count("start") == 1


@pytest.mark.parametrize("monitor_silent", [False, True])
async def test_guest_that_never_answers_is_ended_all_the_same(
    services: Services,
    lab: EngineLab,
    gate: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    monitor_silent: bool,
) -> None:
    monkeypatch.setattr("app.services.run.DELETE_TIMEOUT_S", 0.1)
    lab.machine.faults.monitor_silent = monitor_silent
    await stopped(services)
    await until_no_vm(services)
    assert not lab.machine.vms
    assert not gate.is_set()


# --- faults between the exit and its record ----------------------------------------------------


async def test_end_is_not_told_before_its_output_is_stored(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_self: LogStore, *_: object) -> None:
        raise ResourceExhausted("The log's disk is full")

    container = await launch(services, TRAP)
    waiting = asyncio.ensure_future(services.containers.wait(container.id))
    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "append", full)
        await services.containers.kill(container.id, signal="SIGTERM", initiator=WHO)
        blocked = await until(services, container.id, lambda c: "disk is full" in c.error)
        assert blocked.state is ContainerState.RUNNING
        assert not waiting.done()
        with pytest.raises(Conflict, match="has just ended"):
            await services.containers.kill(container.id, signal="SIGHUP", initiator=WHO)
    async with asyncio.timeout(DEADLINE_S):
        assert await waiting == 7
    assert await log_text(services, container.id) == ["ready", "terminated"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_vm_that_dies_around_the_record_of_its_end(
    services: Services, lab: EngineLab, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run_ended: Callable[..., Awaitable[Container]] = LifeRecorder.run_ended

    async def with_a_fault(recorder: LifeRecorder, **values: Any) -> Container:
        if when == "before":
            await lab.machine.kill(vm_id)
            await asyncio.sleep(0)  # the life hears of it
        ended = await run_ended(recorder, **values)
        if when == "after":
            await lab.machine.kill(vm_id)
        return ended

    monkeypatch.setattr(LifeRecorder, "run_ended", with_a_fault)
    container = await launch(services, TRAP)
    vm_id = container.vm_id or ""
    await services.containers.stop(container.id, initiator=WHO)
    ended = await services.containers.get(container.id)
    assert (ended.state, ended.exit_code, ended.error) == (ContainerState.EXITED, 7, "")
    assert (await actions(services, container.id)).count("die") == 1
    await until_no_vm(services)
    assert not lab.machine.vms


async def test_defect_after_the_end_leaves_no_vm(
    services: Services,
    lab: EngineLab,
    gate: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("app.services.supervisor.DEFECT_DELAY_S", 0)
    monkeypatch.setattr("app.services.console.ConsoleArchive.keep", broken)
    container = await stopped(services)
    gate.set()
    await until_no_vm(services)
    assert "a defect" in caplog.text
    async with asyncio.timeout(DEADLINE_S):
        await services.containers.remove(container.id, initiator=WHO)
    assert not lab.machine.vms
