"""Memory of VMs is measured in turn, at most every ten seconds each, and evenly."""

import asyncio
from collections import Counter

import pytest

from app.core.errors import Unavailable
from app.services.residency import INTERVAL_S, TICK_S, ResidencySampler, Sampler


class Fleet:
    """VMs that count how often they are measured, and a clock that a test turns."""

    def __init__(self, size: int) -> None:
        self.now_s = 1000.0
        self.names = [f"vm-{number}" for number in range(size)]
        self.sampled: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.at_once = 0
        self.most_at_once = 0
        self.sampler = ResidencySampler(self.vms, clock_s=lambda: self.now_s)

    def vms(self) -> list[Sampler]:
        return [(name, lambda name=name: self._measure(name)) for name in self.names]  # type: ignore[misc]

    async def _measure(self, name: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.sampled[name] += 1
        if name in self.broken:
            raise Unavailable("gone")

    async def ticks(self, seconds: float) -> list[int]:
        """How many were measured in each tick."""
        counts = []
        for _ in range(int(seconds / TICK_S)):
            before = self.sampled.total()
            await self.sampler.tick()
            counts.append(self.sampled.total() - before)
            self.now_s += TICK_S
        return counts


@pytest.mark.parametrize("size", [1, 7, 200])
async def test_each_vm_is_measured_once_an_interval_and_evenly(size: int) -> None:
    fleet = Fleet(size)
    counts = await fleet.ticks(INTERVAL_S)
    assert set(fleet.sampled.values()) == {1}
    assert len(fleet.sampled) == size
    assert max(counts) <= -(-size // 8)
    await fleet.ticks(3 * INTERVAL_S)
    assert set(fleet.sampled.values()) == {4}
    assert fleet.most_at_once == 1


async def test_new_vm_does_not_wait_for_the_others() -> None:
    fleet = Fleet(8)
    await fleet.ticks(INTERVAL_S)
    fleet.names.append("new")
    await fleet.ticks(TICK_S)
    assert fleet.sampled["new"] == 1


async def test_vm_that_is_gone_hinders_nobody() -> None:
    fleet = Fleet(3)
    fleet.broken = {"vm-0"}
    await fleet.ticks(INTERVAL_S)
    assert set(fleet.sampled.values()) == {1}
    fleet.names.remove("vm-0")
    await fleet.ticks(INTERVAL_S)
    assert (fleet.sampled["vm-0"], fleet.sampled["vm-1"]) == (1, 2)
