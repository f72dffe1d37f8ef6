"""Starts by VMs that wait in the pool, over the fake machine."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.errors import Unavailable
from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.guest.protocol import Op
from app.hypervisor.fake import FakeVm
from app.hypervisor.port import DiskSpec
from app.services.guest_spec import SCRATCH_SERIAL
from app.services.launch import CONTAINER_LABEL
from app.services.templates import TemplateState
from app.services.warm_vm import POOL_LABEL
from tests.integration.engine_lab import (
    POLL_S,
    WHO,
    EngineLab,
    launch,
    log_text,
    shell,
    start_path,
    until_no_vm,
    until_state,
    until_template,
    until_waiting,
)

DEADLINE_S = 10.0
FOREVER = shell("while true; do sleep 1; done")


@pytest.fixture
def pooling_lab(lab: EngineLab) -> EngineLab:
    """A lab where one VM waits."""
    lab.can_clone = True
    return resized(lab, "1")


def resized(lab: EngineLab, size: str) -> EngineLab:
    """The lab with another setting of the pool's size."""
    lab.settings = lab.settings.model_copy(update={"pool_size": size})
    return lab


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(POLL_S)


async def typed() -> AsyncIterator[bytes]:
    """What somebody writes."""
    yield b"typed\n"


async def test_start_takes_the_vm_that_waits_and_another_is_made(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        [(waiting, vm)] = pooling_lab.machine.vms.items()
        assert vm.spec.labels.keys() == {POOL_LABEL}
        assert not vm.disks
        container = await launch(services, FOREVER)
        assert container.vm_id == waiting
        assert vm.spec.labels == {CONTAINER_LABEL: container.id}
        assert vm.disks.keys() == {"layer-0", SCRATCH_SERIAL}
        assert [stage.name for stage in container.boot_stages][:2] == ["claim", "mount"]
        assert await start_path(services, container) == "pool"
        [shown] = await services.hosts.vms()
        assert shown.start_path == "pool"
        await until_waiting(services, 1)
        await services.containers.kill(container.id, initiator=WHO)


async def test_guest_is_made_new_before_the_container_runs(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        [guest] = [each for each in pooling_lab.guests.values() if each.machine.entropy_bytes]
        before = len(guest.runs)
        assert not guest.containers
        container = await launch(services, FOREVER)
        assert guest.runs[before:] == [Op.SEED_ENTROPY, Op.SET_CLOCK, Op.CREATE, Op.START]
        assert guest.containers.keys() == {container.id}
        await services.containers.kill(container.id, initiator=WHO)


async def test_engine_that_ends_leaves_nothing_of_its_pool(pooling_lab: EngineLab) -> None:
    async with resized(pooling_lab, "2").engine() as services:
        await until_waiting(services, 2)
    assert not pooling_lab.machine.vms
    assert not await asyncio.to_thread(os.listdir, pooling_lab.machine.run_root)
    scratch = pooling_lab.settings.data_dir / "scratch"
    assert not [name for name in await asyncio.to_thread(os.listdir, scratch) if name[0] != "."]


async def test_containers_go_on_when_the_engine_of_their_pool_ends(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        container = await launch(services, FOREVER)
    assert list(pooling_lab.machine.vms) == [container.vm_id]
    async with resized(pooling_lab, "0").engine() as services:
        assert (await services.containers.get(container.id)).state is ContainerState.RUNNING
        await services.containers.kill(container.id, initiator=WHO)
        await until_state(services, container.id, ContainerState.EXITED)


async def test_pool_that_is_off_keeps_nothing(pooling_lab: EngineLab) -> None:
    async with resized(pooling_lab, "0").engine() as services:
        await until_template(services, TemplateState.READY)
        assert (await services.hosts.host()).pool is None
        container = await launch(services, FOREVER)
        assert await start_path(services, container) == "clone"
        assert list(pooling_lab.machine.vms) == [container.vm_id]
        await services.containers.kill(container.id, initiator=WHO)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (ContainerConfig(image="busybox", command=("sleep", "9"), memory_bytes=2**27), "clone"),
        (ContainerConfig(image="busybox", command=("sleep", "9"), pids_limit=9), "pool"),
    ],
    ids=["other memory", "limits within the VM"],
)
async def test_only_the_usual_shape_comes_from_the_pool(
    pooling_lab: EngineLab, config: ContainerConfig, path: str
) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        container = await launch(services, config)
        assert await start_path(services, container) == path
        await services.containers.kill(container.id, initiator=WHO)


async def test_dry_pool_makes_starts_clones(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        containers = await asyncio.gather(*(launch(services, FOREVER) for _ in range(4)))
        paths = [await start_path(services, container) for container in containers]
        assert sorted(paths) == ["clone", "clone", "clone", "pool"]
        for container in containers:
            await services.containers.kill(container.id, initiator=WHO)


async def test_input_and_terminal(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        config = ContainerConfig(image="busybox", command=("cat",), stdin_open=True, tty=True)
        container = await launch(services, config)
        assert await start_path(services, container) == "pool"
        process = pooling_lab.guest_of(container).containers[container.id].init
        assert process.has_tty
        await services.containers.write_stdin(container, typed(), close=True)
        await until_state(services, container.id, ContainerState.EXITED)
        assert await log_text(services, container.id) == ["typed"]


async def test_container_that_was_there_before_keeps_its_disk(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        container = await launch(services, shell("exit 0"))
        await until_state(services, container.id, ContainerState.EXITED)
        await until_waiting(services, 1)
        disk = pooling_lab.settings.data_dir / "scratch" / f"{container.id}.ext4"
        inode = (await asyncio.to_thread(disk.stat)).st_ino
        await services.containers.start(container.id, initiator=WHO)
        await until_state(services, container.id, ContainerState.EXITED)
        assert await start_path(services, container) == "pool"
        assert (await asyncio.to_thread(disk.stat)).st_ino == inode


async def test_silent_vm_is_passed_over_and_replaced(
    pooling_lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resized(pooling_lab, "2").engine() as services:
        await until_waiting(services, 2)
        first, second = pooling_lab.machine.vms
        monkeypatch.setattr("app.services.warm_vm.HEARD_WITHIN_S", 0.0)
        container = await launch(services, FOREVER)
        monkeypatch.undo()
        assert await start_path(services, container) == "clone"
        await until_waiting(services, 2)
        assert not pooling_lab.machine.vms.keys() & {first, second}
        await services.containers.kill(container.id, initiator=WHO)


async def test_vm_that_ends_by_itself_is_replaced(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        [waiting] = pooling_lab.machine.vms
        await pooling_lab.machine.kill(waiting)
        await until_true(lambda: waiting not in pooling_lab.machine.vms)
        await until_waiting(services, 1)


async def test_start_goes_on_as_a_clone_when_the_claimed_vm_dies(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        [(waiting, guest)] = [
            (vm_id, pooling_lab.guests[vm_id]) for vm_id in pooling_lab.machine.vms
        ]
        created = pooling_lab.gates[Op.CREATE] = asyncio.Event()
        starting = asyncio.create_task(launch(services, shell("echo once")))
        await until_true(lambda: Op.CREATE in guest.gated)
        await pooling_lab.machine.kill(waiting)
        created.set()
        container = await starting
        assert await start_path(services, container) == "clone"
        await until_state(services, container.id, ContainerState.EXITED)
        assert await log_text(services, container.id) == ["once"]


async def test_start_goes_on_as_a_clone_when_a_disk_cannot_be_attached(
    pooling_lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(vm: FakeVm, disk: DiskSpec) -> None:
        raise Unavailable(f"VM {vm.spec.id} takes no {disk.serial}")

    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        [waiting] = pooling_lab.machine.vms
        with monkeypatch.context() as patched:
            patched.setattr(FakeVm, "attach_disk", refuse)
            container = await launch(services, FOREVER)
        assert await start_path(services, container) == "clone"
        assert waiting not in pooling_lab.machine.vms
        await services.containers.kill(container.id, initiator=WHO)


async def test_fault_of_the_container_itself_is_not_tried_again(pooling_lab: EngineLab) -> None:
    async with pooling_lab.engine() as services:
        await until_waiting(services, 1)
        config = ContainerConfig(image="busybox", command=("no-such-program",))
        container = await services.containers.create(config, name=None, initiator=WHO)
        with pytest.raises(Exception, match="no-such-program"):
            await services.containers.start(container.id, initiator=WHO)
        failed = await services.containers.get(container.id)
        assert failed.exit_code == 127
        await until_no_vm(services)
        await until_waiting(services, 1)
        assert len(pooling_lab.machine.vms) == 1


async def test_failing_warm_up_is_told_once(
    pooling_lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.pool.FIRST_RETRY_S", 0.0)

    async def fail(process: object) -> int:
        return 9

    pooling_lab.programs["warm-up"] = fail
    async with pooling_lab.engine() as services:
        await until_true(lambda: len(pooling_lab.guests) > 4)
        told = [one for one in await services.events.list(limit=100) if one.action == "pool-failed"]
        assert [one.attributes["error"].split(":")[0] for one in told] == [
            "The warm-up ended with 9"
        ]
        container = await launch(services, FOREVER)
        assert await start_path(services, container) == "clone"
        await services.containers.kill(container.id, initiator=WHO)
