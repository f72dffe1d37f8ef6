"""What VMs hold of the host's memory: one VM at a time, off the event loop, spread evenly.

A proportional set size costs a walk over all pages of a process, a millisecond or more. With
hundreds of VMs a round in one go would take the host's CPUs from the guests for half a second.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable

from app.core.errors import SlipwayError

INTERVAL_S = 10.0  # between two samples of one VM
TICK_S = 1.0
SAMPLE_TIMEOUT_S = 3.0
SPARE = 1.25  # samples a tick beyond the even share, so that nothing falls behind

Sampler = tuple[str, Callable[[], Awaitable[None]]]


class ResidencySampler:
    """Has every VM measured once in `INTERVAL_S`, a few in each tick."""

    def __init__(
        self, vms: Callable[[], Iterable[Sampler]], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._vms = vms
        self._clock_s = clock_s
        self._sampled_at_s: dict[str, float] = {}

    async def run(self) -> None:
        """Sample for ever; cancelled at the engine's end."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Sample those that are due, the longest waiting first, not more than the tick's share."""
        vms = dict(self._vms())
        for gone in self._sampled_at_s.keys() - vms.keys():
            del self._sampled_at_s[gone]
        now_s = self._clock_s()
        due = [
            vm_id for vm_id in vms if now_s - self._sampled_at_s.get(vm_id, -math.inf) >= INTERVAL_S
        ]
        due.sort(key=lambda vm_id: self._sampled_at_s.get(vm_id, -math.inf))
        share = math.ceil(len(vms) * TICK_S / INTERVAL_S * SPARE)
        for vm_id in due[:share]:
            try:
                async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                    await vms[vm_id]()
            except (SlipwayError, TimeoutError):
                pass  # it is gone, or keeps its last value
            self._sampled_at_s[vm_id] = self._clock_s()
