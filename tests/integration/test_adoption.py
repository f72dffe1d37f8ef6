"""An engine that ends and one that comes after it."""

import asyncio
from dataclasses import replace

import pytest

from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.restart import parse_restart_policy
from tests.integration.engine_lab import (
    WHO,
    EngineLab,
    launch,
    log_text,
    shell,
    until,
    until_state,
)


async def test_container_goes_on_and_its_log_is_complete(lab: EngineLab) -> None:
    config = ContainerConfig(image="busybox", command=("loop", "0.002", "600"))
    async with lab.engine() as services:
        container = await launch(services, config)
    for _ in range(3):
        async with lab.engine() as services:
            adopted = await services.containers.get(container.id)
            assert adopted.vm_id == container.vm_id
            last_seq = await services.logs.last_seq(container.id)
            async with services.logs.follow(container.id, after_seq=last_seq) as follower:
                async with asyncio.timeout(5):
                    await follower.next()
    async with lab.engine() as services:
        ended = await until_state(services, container.id, ContainerState.EXITED)
        assert ended.exit_code == 0
        assert await log_text(services, container.id) == [str(n) for n in range(1, 601)]


async def test_exit_while_the_engine_was_away(lab: EngineLab) -> None:
    async with lab.engine() as services:
        container = await launch(services, ContainerConfig(image="busybox", command=("trap", "5")))
        guest = lab.guest_of(container)
    guest.machine.containers[container.id].init.deliver(15)
    async with lab.engine() as services:
        ended = await until_state(services, container.id, ContainerState.EXITED)
        assert ended.exit_code == 5
        assert await log_text(services, container.id) == ["ready", "terminated"]


async def test_vm_that_died_while_the_engine_was_away(lab: EngineLab) -> None:
    async with lab.engine() as services:
        container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
    assert container.vm_id
    await lab.machine.kill(container.vm_id)
    async with lab.engine() as services:
        ended = await until_state(services, container.id, ContainerState.EXITED)
        assert ended.exit_code == 137
        assert ended.error
    assert not lab.machine.vms


async def test_policies_at_the_engines_start(lab: EngineLab) -> None:
    ids: dict[tuple[str, bool], str] = {}
    async with lab.engine() as services:
        for policy in ("no", "always", "unless-stopped"):
            for by_hand in (False, True):
                config = replace(
                    ContainerConfig(image="busybox", command=("loop",)),
                    restart_policy=parse_restart_policy(policy),
                )
                container = await launch(services, config)
                if by_hand:
                    await services.containers.kill(container.id, initiator=WHO)
                ids[policy, by_hand] = container.id
    for vm_id in list(lab.machine.vms):
        await lab.machine.kill(vm_id)
        await lab.machine.discard(vm_id)
    async with lab.engine() as services:
        for key in (("always", False), ("always", True), ("unless-stopped", False)):
            await until_state(services, ids[key], ContainerState.RUNNING)
        for key in (("no", False), ("no", True), ("unless-stopped", True)):
            container = await services.containers.get(ids[key])
            assert container.state is ContainerState.EXITED, key
        for container_id in ids.values():
            await services.containers.remove(container_id, force=True, initiator=WHO)


async def test_vm_of_nobody_is_ended(lab: EngineLab) -> None:
    async with lab.engine() as services:
        container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
    for file in lab.settings.data_dir.glob("slipway.db*"):
        file.unlink()
    async with lab.engine() as services:
        assert not await services.containers.list()
        assert not lab.machine.vms
    assert container.vm_id


async def test_engine_that_ends_during_a_start_undoes_it(lab: EngineLab) -> None:
    lab.machine.faults.silent_guest = True
    async with lab.engine() as services:
        container = await services.containers.create(shell("echo hi"), initiator=WHO)
        starting = asyncio.ensure_future(services.containers.start(container.id, initiator=WHO))
        await until(services, container.id, lambda c: c.vm_id is not None)
    await asyncio.wait({starting})
    starting.cancel()
    assert not lab.machine.vms
    lab.machine.faults.silent_guest = False
    async with lab.engine() as services:
        after = await services.containers.get(container.id)
        assert after.state is ContainerState.CREATED
        assert "stopped while" in after.error
        await services.containers.start(container.id, initiator=WHO)


async def test_stop_cut_short_is_finished_by_the_next_engine(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.supervisor.RESUMED_STOP_GRACE_S", 0)
    async with lab.engine() as services:
        container = await launch(services, shell("while true; do sleep 1; done"))
        stopping = asyncio.ensure_future(
            services.containers.stop(container.id, timeout_s=600, initiator=WHO)
        )
        await until_state(services, container.id, ContainerState.STOPPING)
    await asyncio.wait({stopping})
    assert lab.machine.vms
    async with lab.engine() as services:
        ended = await until_state(services, container.id, ContainerState.EXITED)
        assert (ended.exit_code, ended.stopped_by_user) == (137, True)
