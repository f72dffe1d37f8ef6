"""Warmed VMs that wait for containers: made in the background, handed out at once.

A start never waits for one: `claim` answers at once, and what is missing is made once no start is
under way.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import CorruptData, DeadlineExceeded, SlipwayError
from app.services.admission import Admission
from app.services.demand import Demand
from app.services.residency import Sampler
from app.services.templates import TemplateShelf
from app.services.warm_vm import Warmer, WarmVm

WAITING_PER_CPU = 4  # the most that demand makes it keep
TICK_S = 1.0  # between looks at silence and memory
FIRST_RETRY_S = 5.0
MAX_RETRY_S = 300.0
END_TIMEOUT_S = 15.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolView:
    """The pool as shown.

    Attributes:
        waiting: VMs that can be claimed now.
        size: How many shall wait, by the setting or by recent demand.
        reason: Why fewer wait than shall; empty while all is well.
        resident_bytes: What those that wait hold of the host's memory (PSS), as last sampled.
    """

    waiting: int
    size: int
    reason: str = ""
    resident_bytes: int = 0


class WarmPool:
    """Holds the VMs that wait; `run` is one task of the engine's, and all making is done in it.

    Args:
        warmer: Makes them, of one shape.
        shelf: Has the template.
        admission: Tells whether the host can bear one more.
        demand: Recent starts.
        size: How many shall wait; None: as demand asks for, 0: the pool is off.
        host_cpus: Bounds what demand asks for.
        on_failure: Told once why none can be made.
    """

    def __init__(
        self,
        warmer: Warmer,
        shelf: TemplateShelf,
        admission: Admission,
        demand: Demand,
        *,
        size: int | None,
        host_cpus: int,
        on_failure: Callable[[str], Awaitable[None]],
    ) -> None:
        self._warmer = warmer
        self._shelf = shelf
        self._admission = admission
        self._demand = demand
        self._fixed_size = size
        self._most = WAITING_PER_CPU * host_cpus
        self._on_failure = on_failure
        self._waiting: list[WarmVm] = []  # the one that waits longest first
        self._dropped: list[WarmVm] = []  # to be ended by `run`
        self._wake = demand.changed
        self._reason = ""
        self._told = ""
        self._retry_s = FIRST_RETRY_S
        self._retry_at_s = 0.0

    @property
    def is_off(self) -> bool:
        """Whether there shall be none."""
        return self._fixed_size == 0

    @property
    def _size(self) -> int:
        if self._fixed_size is not None:
            return self._fixed_size
        return min(max(round(self._demand.peak), 1), self._most)

    def view(self) -> PoolView:
        """What waits now."""
        waiting = sum(warm.is_usable for warm in self._waiting)
        return PoolView(
            waiting,
            self._size,
            self._reason if waiting < self._size else "",
            sum(warm.resident_bytes for warm in self._waiting),
        )

    def memory_samplers(self) -> list[Sampler]:
        """How to measure what the host gives each that waits."""
        return [(warm.vm.spec.id, warm.sample_host_memory) for warm in self._waiting]

    def claim(self, vcpus: int, memory_bytes: int) -> WarmVm | None:
        """Take a VM of that shape out of the pool; None if none waits. It is the caller's now."""
        size = self._warmer.size
        if (vcpus, memory_bytes) != (size.vcpus, size.memory_bytes):
            return None
        while self._waiting:
            warm = self._waiting.pop(0)
            if warm.is_usable:
                warm.leave_pool()
                return warm
            self._drop(warm)
        return None

    async def give_up_one(self) -> bool:
        """End the VM that has waited least, for the host's memory; False if none waits."""
        if not self._waiting:
            return False
        warm = self._waiting.pop()
        self._dropped.append(warm)  # whatever becomes of the caller
        await warm.end()
        return True

    async def run(self) -> None:
        """Keep as many as shall wait, until cancelled; then end them all."""
        if self.is_off:
            return
        try:
            while True:
                self._wake.clear()
                await self._tidy()
                delay_s = await self._refill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
        finally:
            self._dropped += self._waiting
            self._waiting.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._end_dropped()

    async def _tidy(self) -> None:
        """End those that are of no use, too many, or in the way of containers."""
        for warm in [each for each in self._waiting if not each.is_usable]:
            self._waiting.remove(warm)
            self._drop(warm)
        surplus = len(self._waiting) - self._size
        if surplus <= 0 and self._waiting and not await self._admission.has_room_for(1):
            surplus = 1
        for _ in range(surplus):
            self._drop(self._waiting.pop())
        await self._end_dropped()

    def _drop(self, warm: WarmVm) -> None:
        self._dropped.append(warm)
        self._wake.set()

    async def _end_dropped(self) -> None:
        dropped, self._dropped = self._dropped, []
        await asyncio.gather(*(warm.end() for warm in dropped))

    async def _refill(self) -> float:
        """Make one if one is missing and this is the time; returns how long to wait then."""
        now_s = time.monotonic()
        if len(self._waiting) >= self._size:
            self._reason = ""
            return TICK_S
        if (wait_s := max(self._demand.busy_for_s(), self._retry_at_s - now_s)) > 0:
            return min(wait_s, TICK_S)
        # So that a start finds room beside it.
        if not await self._admission.has_room_for(2):
            self._reason = "the host's memory is needed for containers"
            return TICK_S
        try:
            made = await self._make()
        except SlipwayError as error:
            await self._failed(error)
            return 0
        if made is None:
            self._reason = "there is no template to make VMs of"
            return TICK_S
        self._waiting.append(made)
        made.ended.add_done_callback(lambda _: self._wake.set())
        self._reason = self._told = ""
        self._retry_s = FIRST_RETRY_S
        return 0

    async def _failed(self, error: SlipwayError) -> None:
        self._reason = error.message
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, MAX_RETRY_S)
        if not self._told:
            self._told = error.message
            logger.warning("Pool: %s", error.message)
            await self._on_failure(error.message)

    async def _make(self) -> WarmVm | None:
        vcpus = self._warmer.size.vcpus
        template = self._shelf.take(vcpus)
        if template is None:
            return None
        self._reason = self._told
        try:
            warm = await self._warmer.clone(template)
        except CorruptData as error:
            await self._shelf.drop(template, error)
            raise
        try:
            await self._warmer.until_answers(warm)
            self._shelf.clone_answered(vcpus)
            await self._warmer.warm_up(warm)
        except BaseException as error:
            await warm.end()
            if isinstance(error, DeadlineExceeded):
                await self._shelf.clone_was_silent(vcpus, error)
            raise
        return warm
