"""The pool's policy: how many, when, and who goes; its VMs and their making are played."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.core.errors import CorruptData, SlipwayError, Unavailable
from app.domain.sizing import START_COST_BYTES, VmSize
from app.services.admission import Admission, MemoryReading
from app.services.demand import HALF_LIFE_S, QUIET_S, STALE_S, WINDOW_S, Demand
from app.services.pool import WAITING_PER_CPU, WarmPool
from app.services.templates import TemplateShelf
from app.services.warm_vm import Warmer

SIZE = VmSize(2**30, 2, 2**29, None)
SHAPE = (SIZE.vcpus, SIZE.memory_bytes)
RESERVE_BYTES = 100


@dataclass(eq=False)
class PlayedVm:
    number: int
    is_usable: bool = True
    is_ended: bool = False
    resident_bytes: int = 5
    ended: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def leave_pool(self) -> None:
        self.ended.cancel()

    async def end(self) -> None:
        await asyncio.sleep(0)
        self.is_ended = True


class PlayedWarmer:
    """Makes VMs unless told otherwise."""

    size = SIZE

    def __init__(self) -> None:
        self.made: list[PlayedVm] = []
        self.error: SlipwayError | None = None

    async def clone(self, _template: object) -> PlayedVm:
        if isinstance(self.error, CorruptData):
            raise self.error
        self.made.append(PlayedVm(len(self.made)))
        return self.made[-1]

    async def until_answers(self, _warm: PlayedVm) -> None:
        await asyncio.sleep(0)

    async def warm_up(self, _warm: PlayedVm) -> None:
        if self.error is not None:
            raise self.error


class PlayedShelf:
    """Has a template unless told otherwise."""

    def __init__(self) -> None:
        self.template: object | None = object()
        self.answers = 0
        self.dropped: list[SlipwayError] = []

    def take(self, vcpus: int) -> object | None:
        assert vcpus == SIZE.vcpus
        return self.template

    def clone_answered(self, _vcpus: int) -> None:
        self.answers += 1

    async def drop(self, _template: object, error: SlipwayError) -> None:
        self.dropped.append(error)
        self.template = None


class Lab:
    """A pool and all that it looks at."""

    def __init__(self, size: int | None) -> None:
        self.warmer, self.shelf, self.told = PlayedWarmer(), PlayedShelf(), []  # type: ignore[var-annotated]
        self.now_s = 1000.0
        self.available_bytes = 100 * START_COST_BYTES
        self.demand = Demand(clock_s=lambda: self.now_s)
        admission = Admission(
            default_memory_bytes=SIZE.memory_bytes,
            default_vcpus=SIZE.vcpus,
            reserve_bytes=RESERVE_BYTES,
            host_cpus=2,
            read=lambda: MemoryReading(2**40, self.available_bytes),
        )
        self.pool = WarmPool(
            cast(Warmer, self.warmer),
            cast(TemplateShelf, self.shelf),
            admission,
            self.demand,
            size=size,
            host_cpus=2,
            on_failure=self._tell,
        )

    async def _tell(self, error: str) -> None:
        self.told.append(error)

    @asynccontextmanager
    async def running(self, waiting: int | None = None) -> AsyncIterator[WarmPool]:
        task = asyncio.create_task(self.pool.run())
        try:
            if waiting is not None:
                await self.until(lambda: self.pool.view().waiting == waiting)
            yield self.pool
        finally:
            task.cancel()
            await asyncio.wait({task})
        assert all(vm.is_ended for vm in self.warmer.made)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while True:
                if condition():
                    return
                await asyncio.sleep(0)

    def alive(self) -> list[int]:
        return [vm.number for vm in self.warmer.made if not vm.is_ended]


def claimed(vm: Any) -> int:
    assert isinstance(vm, PlayedVm)
    vm.is_ended = True  # by whoever has it
    return vm.number


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.pool.TICK_S", 0.001)


async def test_a_fixed_number_waits_and_the_oldest_is_claimed_first() -> None:
    lab = Lab(3)
    async with lab.running(waiting=3) as pool:
        assert lab.shelf.answers == 3
        assert claimed(pool.claim(*SHAPE)) == 0
        assert pool.claim(1, SIZE.memory_bytes) is None
        assert pool.claim(2, 2**29) is None
        await lab.until(lambda: pool.view().waiting == 3)
        assert lab.alive() == [1, 2, 3]
        view = pool.view()
        assert (view.size, view.reason, view.resident_bytes) == (3, "", 15)


async def test_demand_makes_it_larger_and_then_smaller_again() -> None:
    lab = Lab(None)
    async with lab.running(waiting=1) as pool:
        for _ in range(5):
            lab.demand.note()
        assert pool.view().size == 5
        lab.demand.changed.set()
        await lab.until(lambda: pool.view().waiting == 5)
        for _ in range(50):
            lab.demand.note()
        assert pool.view().size == 2 * WAITING_PER_CPU
        lab.now_s += 20 * HALF_LIFE_S
        assert pool.view().size == 1
        await lab.until(lambda: lab.alive() == [0])


async def test_nothing_is_made_while_a_start_is_under_way() -> None:
    lab = Lab(1)
    lab.demand.begin("a")
    async with lab.running() as pool:
        await asyncio.sleep(0.02)  # that nothing happens needs a while
        assert not lab.warmer.made
        lab.demand.end("a")
        await asyncio.sleep(0.02)
        assert not lab.warmer.made
        lab.now_s += QUIET_S
        await lab.until(lambda: pool.view().waiting == 1)


async def test_memory_bounds_it_and_takes_the_newest_first() -> None:
    lab = Lab(3)
    async with lab.running(waiting=3) as pool:
        lab.available_bytes = RESERVE_BYTES + START_COST_BYTES - 1
        await lab.until(lambda: lab.alive() == [0, 1])
        lab.available_bytes = RESERVE_BYTES + START_COST_BYTES
        assert await pool.give_up_one()
        assert lab.alive() == [0]
        await lab.until(lambda: "memory" in pool.view().reason)
        assert lab.alive() == [0]
        lab.available_bytes += START_COST_BYTES
        await lab.until(lambda: pool.view().waiting == 3)
        assert pool.view().reason == ""


async def test_there_is_nothing_to_give_up_in_an_empty_pool() -> None:
    assert not await Lab(0).pool.give_up_one()


async def test_silent_ones_are_passed_over_and_replaced() -> None:
    lab = Lab(2)
    async with lab.running(waiting=2) as pool:
        lab.warmer.made[0].is_usable = False
        assert claimed(pool.claim(*SHAPE)) == 1
        await lab.until(lambda: lab.alive() == [2, 3])


async def test_one_that_ends_by_itself_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.pool.TICK_S", 3600)
    lab = Lab(1)
    async with lab.running(waiting=1):
        lab.warmer.made[0].is_usable = False
        lab.warmer.made[0].ended.set_result(None)
        await lab.until(lambda: lab.alive() == [1])


async def test_failures_are_told_once_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.pool.FIRST_RETRY_S", 0)
    lab = Lab(1)
    lab.warmer.error = Unavailable("no warmth")
    async with lab.running() as pool:
        await lab.until(lambda: len(lab.warmer.made) > 3)
        assert lab.told == ["no warmth"]
        assert pool.view().reason == "no warmth"
        lab.warmer.error = None
        await lab.until(lambda: pool.view().waiting == 1)
        lab.warmer.error = Unavailable("cold again")
        claimed(pool.claim(*SHAPE))
        lab.demand.changed.set()
        await lab.until(lambda: len(lab.told) == 2)


async def test_failures_are_not_repeated_fast() -> None:
    lab = Lab(1)
    lab.warmer.error = Unavailable("no warmth")
    async with lab.running():
        await lab.until(lambda: bool(lab.told))
        await asyncio.sleep(0.05)
        assert len(lab.warmer.made) == 1


async def test_a_damaged_template_is_dropped_and_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.pool.FIRST_RETRY_S", 0)
    lab = Lab(1)
    lab.warmer.error = CorruptData("torn")
    async with lab.running() as pool:
        await lab.until(lambda: "template" in pool.view().reason)
        assert [error.message for error in lab.shelf.dropped] == ["torn"]
        lab.warmer.error, lab.shelf.template = None, SimpleNamespace()
        await lab.until(lambda: pool.view().waiting == 1)


async def test_off_does_nothing() -> None:
    lab = Lab(0)
    await lab.pool.run()
    assert lab.pool.is_off
    assert lab.pool.claim(*SHAPE) is None


async def test_demand_counts_what_comes_together() -> None:
    now_s = 0.0
    demand = Demand(clock_s=lambda: now_s)
    assert demand.peak == 0
    for _ in range(3):
        demand.note()
        now_s += WINDOW_S  # the next is within the window of one before, never of two
    assert demand.peak == pytest.approx(2, rel=0.1)


async def test_a_start_that_never_ends_holds_nobody_back_for_ever() -> None:
    now_s = 0.0
    demand = Demand(clock_s=lambda: now_s)
    demand.begin("a")
    assert demand.busy_for_s() == STALE_S
    now_s += STALE_S
    assert demand.busy_for_s() == 0
