"""Page cache is taken from who does nothing, once, and never from who works."""

from dataclasses import replace

from app.core.errors import Unavailable
from app.core.units import MIB
from app.services.cache_reclaim import GROWTH_BYTES, IDLE_S, KEPT_BYTES, CacheReclaim
from tests.unit.web.fake_stores import sample

STEP_S = 10


class Lab:
    """A container whose cache a test sets."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.yields = 1.0
        self.cache_bytes = 0
        self.fault: Exception | None = None
        self.policy = CacheReclaim(self._reclaim)
        self._now_ns = 0

    async def _reclaim(self, _container_id: str, size_bytes: int) -> int:
        self.calls.append(size_bytes)
        if self.fault is not None:
            raise self.fault
        given = int(size_bytes * self.yields)
        self.cache_bytes -= given
        return given

    async def passes(self, seconds: float, *, cpu_percent: float = 0.1) -> None:
        for _ in range(int(seconds / STEP_S)):
            self._now_ns += STEP_S * 10**9
            seen = replace(
                sample(cpu_percent), time_ns=self._now_ns, memory_file_bytes=self.cache_bytes
            )
            await self.policy.judge("a" * 64, seen)


async def test_idle_container_gives_back_all_but_a_little() -> None:
    lab = Lab()
    lab.cache_bytes = 300 * MIB
    await lab.passes(IDLE_S)
    assert lab.calls == []
    await lab.passes(STEP_S)
    assert lab.calls == [300 * MIB - KEPT_BYTES]
    await lab.passes(20 * IDLE_S)
    assert len(lab.calls) == 1


async def test_busy_container_keeps_its_cache() -> None:
    lab = Lab()
    lab.cache_bytes = 300 * MIB
    for _ in range(20):
        await lab.passes(IDLE_S / 2)
        await lab.passes(STEP_S, cpu_percent=30)
    assert lab.calls == []


async def test_small_cache_is_left_alone() -> None:
    lab = Lab()
    lab.cache_bytes = KEPT_BYTES + GROWTH_BYTES - 1
    await lab.passes(10 * IDLE_S)
    assert lab.calls == []


async def test_what_can_not_be_taken_is_not_asked_for_again() -> None:
    lab = Lab()
    lab.cache_bytes = 300 * MIB
    lab.yields = 0.1  # files in a tmpfs count as cache
    await lab.passes(20 * IDLE_S)
    assert len(lab.calls) == 1
    lab.cache_bytes += GROWTH_BYTES
    await lab.passes(2 * IDLE_S)
    assert len(lab.calls) == 2


async def test_cache_that_grew_again_is_taken_again_after_another_idle_time() -> None:
    lab = Lab()
    lab.cache_bytes = 300 * MIB
    await lab.passes(2 * IDLE_S)
    lab.cache_bytes = 200 * MIB
    await lab.passes(STEP_S, cpu_percent=50)
    await lab.passes(IDLE_S)
    assert len(lab.calls) == 1
    await lab.passes(IDLE_S)
    assert len(lab.calls) == 2


async def test_guest_that_refuses_is_no_fault_of_the_sampler() -> None:
    lab = Lab()
    lab.cache_bytes = 300 * MIB
    lab.fault = Unavailable("no VM")
    await lab.passes(5 * IDLE_S)
    assert len(lab.calls) == 1
    lab.policy.forget("a" * 64)
    lab.fault = None
    await lab.passes(2 * IDLE_S)
    assert len(lab.calls) == 2
