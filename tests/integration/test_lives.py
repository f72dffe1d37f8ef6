"""Containers' lives over the fake machine: starts, ends, restarts, faults, and what is left."""

import asyncio
from pathlib import Path

import pytest

from app.core.errors import (
    AlreadyInState,
    Conflict,
    GuestFailed,
    NotFound,
    ResourceExhausted,
    SlipwayError,
)
from app.domain.container import ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.restart import parse_restart_policy
from app.services.bundle import Services
from app.services.run import Run
from tests.integration.engine_lab import (
    WHO,
    EngineLab,
    launch,
    log_text,
    shell,
    until,
    until_no_vm,
    until_state,
)


async def actions(services: Services, container_id: str) -> list[str]:
    events = await services.events.list(actor_id=container_id, limit=1000)
    return [event.action for event in reversed(events)]


async def test_life_of_a_short_command(services: Services, lab: EngineLab) -> None:
    container = await launch(services, shell("echo hello; echo oops >&2; exit 3"), "one")
    ended = await until_state(services, container.id, ContainerState.EXITED)
    assert (ended.exit_code, ended.oom_killed, ended.error) == (3, False, "")
    lines = await services.logs.read(container.id, from_seq=1, limit=10)
    assert [(line.stream, line.text) for line in lines] == [("stdout", "hello"), ("stderr", "oops")]
    assert await actions(services, container.id) == ["create", "start-requested", "start", "die"]
    assert [stage.name for stage in container.boot_stages]
    await until_no_vm(services)
    assert not lab.machine.vms


async def test_stop_sends_the_stop_signal(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("trap", "7")))
    await services.containers.stop(container.id, initiator=WHO)
    ended = await services.containers.get(container.id)
    assert (ended.state, ended.exit_code) == (ContainerState.EXITED, 7)
    assert await log_text(services, container.id) == ["ready", "terminated"]


async def test_stop_kills_what_does_not_obey(services: Services) -> None:
    container = await launch(services, shell("while true; do sleep 1; done"))
    await services.containers.stop(container.id, timeout_s=0, initiator=WHO)
    ended = await services.containers.get(container.id)
    assert (ended.state, ended.exit_code) == (ContainerState.EXITED, 137)


async def test_start_and_stop_twice_say_so(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
    with pytest.raises(AlreadyInState):
        await services.containers.start(container.id, initiator=WHO)
    await services.containers.kill(container.id, initiator=WHO)
    with pytest.raises(AlreadyInState):
        await services.containers.stop(container.id, initiator=WHO)


async def test_restart_goes_on_with_the_same_log(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("trap",)))
    await services.containers.restart(container.id, initiator=WHO)
    again = await services.containers.get(container.id)
    assert again.state is ContainerState.RUNNING
    assert again.vm_id != container.vm_id
    await services.containers.stop(container.id, initiator=WHO)
    assert await log_text(services, container.id) == ["ready", "terminated"] * 2


async def test_pause_and_unpause(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop", "0.01")))
    await services.containers.pause(container.id, initiator=WHO)
    assert (await services.containers.get(container.id)).state is ContainerState.PAUSED
    with pytest.raises(Conflict, match="paused"):
        await services.containers.pause(container.id, initiator=WHO)
    await services.containers.unpause(container.id, initiator=WHO)
    await services.containers.pause(container.id, initiator=WHO)
    await services.containers.stop(container.id, timeout_s=1, initiator=WHO)
    assert (await services.containers.get(container.id)).state is ContainerState.EXITED


async def test_unknown_command_is_127_and_leaves_nothing(
    services: Services, lab: EngineLab
) -> None:
    container = await services.containers.create(
        ContainerConfig(image="busybox", command=("no-such-program",)), initiator=WHO
    )
    with pytest.raises(GuestFailed):
        await services.containers.start(container.id, initiator=WHO)
    failed = await services.containers.get(container.id)
    assert (failed.state, failed.exit_code) == (ContainerState.CREATED, 127)
    assert "no-such-program" in failed.error
    assert not lab.machine.vms
    with pytest.raises(GuestFailed):
        await services.containers.start(container.id, initiator=WHO)


async def test_on_failure_retries_so_often(services: Services) -> None:
    policy = parse_restart_policy("on-failure:2")
    container = await launch(services, shell("echo try; exit 4", restart_policy=policy))
    ended = await until_state(services, container.id, ContainerState.EXITED)
    assert (ended.restart_count, ended.exit_code) == (2, 4)
    assert await log_text(services, container.id) == ["try"] * 3


async def test_stop_ends_the_back_off(services: Services) -> None:
    policy = parse_restart_policy("always")
    container = await launch(services, shell("exit 1", restart_policy=policy))
    await until(services, container.id, lambda c: c.restart_count >= 3)
    await until_state(services, container.id, ContainerState.RESTARTING)
    await services.containers.stop(container.id, initiator=WHO)
    assert (await services.containers.get(container.id)).state is ContainerState.EXITED


async def test_auto_remove_leaves_the_log(services: Services, lab: EngineLab) -> None:
    container = await launch(services, shell("echo bye", auto_remove=True))
    with pytest.raises(NotFound):
        await until(services, container.id, lambda _: False)
    assert await log_text(services, container.id) == ["bye"]
    assert not list((lab.settings.data_dir / "scratch").glob(f"*{container.id}*"))


async def test_remove_needs_force_for_a_running_one(services: Services, lab: EngineLab) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop",)))
    with pytest.raises(Conflict, match="stop the container before"):
        await services.containers.remove(container.id, initiator=WHO)
    await services.containers.remove(container.id, force=True, initiator=WHO)
    with pytest.raises(NotFound):
        await services.containers.get(container.id)
    assert not lab.machine.vms


async def test_wait_answers_with_the_exit_code(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("trap", "9")))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(services.containers.wait(container.id))
        await services.containers.stop(container.id, initiator=WHO)
    assert waiting.result() == 9
    assert await services.containers.wait(container.id) == 9


async def test_oom_is_flagged(services: Services) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("oom",)))
    ended = await until_state(services, container.id, ContainerState.EXITED)
    assert (ended.exit_code, ended.oom_killed) == (137, True)


@pytest.mark.parametrize(("fault", "words"), [("panic", "panic"), ("kill", "killed")])
async def test_vm_that_vanishes_gives_a_plain_reason(
    services: Services, lab: EngineLab, fault: str, words: str
) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop", "0.01")))
    assert container.vm_id
    await getattr(lab.machine, fault)(container.vm_id)
    ended = await until_state(services, container.id, ContainerState.EXITED)
    assert ended.exit_code == 137
    assert words in ended.error.lower()
    assert not lab.machine.vms


async def test_hung_guest_is_shown_within_five_seconds(services: Services, lab: EngineLab) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop", "1")))
    lab.guest_of(container).is_hung = True
    async with asyncio.timeout(6):
        silent = await until(services, container.id, lambda c: c.unresponsive_since_ns is not None)
    assert silent.state is ContainerState.RUNNING
    lab.guest_of(container).resume()
    await until(services, container.id, lambda c: c.unresponsive_since_ns is None)
    lab.guest_of(container).is_hung = True
    await services.containers.kill(container.id, initiator=WHO)
    assert (await services.containers.get(container.id)).state is ContainerState.EXITED


async def test_vm_held_by_the_hypervisor_says_why(services: Services, lab: EngineLab) -> None:
    container = await launch(services, ContainerConfig(image="busybox", command=("loop", "1")))
    assert container.vm_id
    lab.machine.pause(container.vm_id, "the host's disk is full")
    lab.guest_of(container).is_hung = True
    held = await until(services, container.id, lambda c: bool(c.error))
    assert held.state is ContainerState.RUNNING
    assert held.error == "the host's disk is full"
    lab.machine.resume(container.vm_id)
    lab.guest_of(container).resume()
    await until(services, container.id, lambda c: not c.error)
    await services.containers.kill(container.id, initiator=WHO)


async def test_defect_of_the_engine_costs_neither_container_nor_log(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep_clock = Run.keep_clock
    defects = 1

    async def fail_once(run: Run) -> None:
        nonlocal defects
        if defects:
            defects -= 1
            await run.channel.connected(5)
            while not run.is_started:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
            raise RuntimeError("a defect")
        await keep_clock(run)

    monkeypatch.setattr(Run, "keep_clock", fail_once)
    config = ContainerConfig(image="busybox", command=("loop", "0.01", "300"))
    container = await launch(services, config)
    ended = await until_state(services, container.id, ContainerState.EXITED)
    assert (ended.exit_code, ended.vm_id) == (0, None)
    assert await log_text(services, container.id) == [str(number) for number in range(1, 301)]
    assert "a defect" in caplog.text


async def test_failed_create_leaves_nothing(services: Services, lab: EngineLab) -> None:
    lab.machine.faults.create_error = SlipwayError("no VM today")
    container = await services.containers.create(shell("exit 0"), initiator=WHO)
    with pytest.raises(SlipwayError, match="no VM today"):
        await services.containers.start(container.id, initiator=WHO)
    failed = await services.containers.get(container.id)
    assert (failed.state, failed.exit_code) == (ContainerState.CREATED, 128)
    lab.machine.faults.create_error = None
    await services.containers.start(container.id, initiator=WHO)


async def test_taken_names_conflict_and_drawn_names_do_not(services: Services) -> None:
    config = shell("exit 0")
    await services.containers.create(config, name="web", initiator=WHO)
    with pytest.raises(Conflict, match='The container name "/web" is already in use'):
        await services.containers.create(config, name="web", initiator=WHO)
    drawn = {(await services.containers.create(config, initiator=WHO)).name for _ in range(20)}
    assert len(drawn) == 20


async def test_rename(services: Services) -> None:
    container = await services.containers.create(shell("exit 0"), name="old", initiator=WHO)
    await services.containers.rename("old", "new", initiator=WHO)
    assert (await services.containers.get("new")).id == container.id
    with pytest.raises(NotFound):
        await services.containers.get("old")


async def test_start_is_refused_before_the_host_runs_out(lab: EngineLab) -> None:
    lab.settings.memory_reserve_bytes = 1 << 60
    async with lab.engine() as services:
        container = await services.containers.create(shell("exit 0"), initiator=WHO)
        with pytest.raises(ResourceExhausted, match="in reserve"):
            await services.containers.start(container.id, initiator=WHO)
        assert not lab.machine.vms


async def test_console_is_kept_after_the_end(services: Services) -> None:
    container = await launch(services, shell("exit 0"))
    await until_state(services, container.id, ContainerState.EXITED)
    assert b"booting" in await services.logs.console(container.id)


async def test_hundred_thousand_lines_with_a_viewer_that_never_reads(services: Services) -> None:
    config = ContainerConfig(image="busybox", command=("flood", "100000"))
    container = await services.containers.create(config, initiator=WHO)
    async with services.logs.follow(container.id, after_seq=0):
        await services.containers.start(container.id, initiator=WHO)
        other = await launch(services, shell("echo quick"))
        await until_state(services, other.id, ContainerState.EXITED)
        await until_state(services, container.id, ContainerState.EXITED)
    expected = [str(number) for number in range(1, 100_001)]
    assert await all_lines(services, container.id) == expected


async def all_lines(services: Services, container_id: str) -> list[str]:
    texts: list[str] = []
    while lines := await services.logs.read(container_id, from_seq=len(texts) + 1, limit=10_000):
        assert lines[0].seq == len(texts) + 1
        texts += [line.text for line in lines]
    return texts


def scratch_files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "scratch").iterdir() if len(path.stem) == 64)
