"""Live numbers of running containers: one sampler for all viewers."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from app.core.errors import SlipwayError

if TYPE_CHECKING:
    from app.services.cache_reclaim import CacheReclaim

WATCHED_INTERVAL_S = 1.0
IDLE_INTERVAL_S = 10.0
HISTORY_SAMPLES = 300  # five minutes at one a second
SAMPLE_TIMEOUT_S = 3.0
PARALLEL_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """Raw counters of one container and its VM at one moment.

    Source: the agent's cgroup v2 files and /proc/meminfo in the guest; `host_resident_bytes` is
    the PSS of the VM's process from smaps_rollup on the host, `host_template_bytes` that part of
    it which is its share of the template it was cloned from. Both are up to ten seconds old.
    """

    time_ns: int
    cpu_us: int
    cpu_user_us: int
    cpu_system_us: int
    memory_bytes: int
    memory_limit_bytes: int
    memory_anon_bytes: int
    memory_file_bytes: int
    pids: int
    io_read_bytes: int
    io_write_bytes: int
    guest_total_bytes: int
    guest_available_bytes: int
    guest_kernel_bytes: int
    host_resident_bytes: int | None
    host_template_bytes: int | None

    @property
    def guest_used_bytes(self) -> int:
        """What the container uses, its page cache, and what the guest's kernel needs."""
        parts = (self.memory_anon_bytes, self.memory_file_bytes, self.guest_kernel_bytes)
        return sum(max(part, 0) for part in parts)

    @property
    def vmm_overhead_bytes(self) -> int | None:
        """What the host holds beyond what the guest uses; None before that was measured.

        The guest may count as used what the host does not hold (or no longer): then it is 0.
        """
        if self.host_resident_bytes is None:
            return None
        return max(self.host_resident_bytes - self.guest_used_bytes, 0)


@dataclass(frozen=True, slots=True)
class ContainerSample(Reading):
    """A reading with its rate: `cpu_percent` 100 is one CPU busy since the reading before."""

    cpu_percent: float


class StatsService:
    """Samples each second while anybody watches, else every ten.

    A container that does not answer in time keeps its last sample; its age is the viewer's to show.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[tuple[str, Callable[[], Awaitable[Reading]]]]],
        *,
        cache_reclaim: "CacheReclaim | None" = None,
    ) -> None:
        self._running = running
        self._cache_reclaim = cache_reclaim
        self._history: dict[str, deque[ContainerSample]] = {}
        self._last: dict[str, Reading] = {}
        self._watchers = 0
        self._wakeup = asyncio.Event()
        self._sampled = asyncio.Condition()

    def latest(self, container_id: str) -> ContainerSample | None:
        """The newest sample; None before the first and after the container ended."""
        history = self._history.get(container_id)
        return history[-1] if history else None

    def history(self, container_id: str) -> tuple[ContainerSample, ...]:
        """At most five minutes at one a second, oldest first."""
        return tuple(self._history.get(container_id, ()))

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Sample each second while inside."""
        self._watchers += 1
        self._wakeup.set()
        try:
            yield
        finally:
            self._watchers -= 1

    async def next_round(self) -> None:
        """Wait until the sampler has gone round once more."""
        async with self._sampled:
            await self._sampled.wait()

    async def run(self) -> None:
        """Sample for ever; cancelled at the engine's end."""
        while True:
            began_s = time.monotonic()
            await self._sample_all()
            async with self._sampled:
                self._sampled.notify_all()
            await self._pause(began_s)

    async def _pause(self, began_s: float) -> None:
        while True:
            interval_s = WATCHED_INTERVAL_S if self._watchers else IDLE_INTERVAL_S
            left_s = began_s + interval_s - time.monotonic()
            if left_s <= 0:
                return
            self._wakeup.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._wakeup.wait()
            except TimeoutError:
                return

    async def _sample_all(self) -> None:
        running = dict(self._running())
        for gone in self._history.keys() - running.keys():
            del self._history[gone]
            self._last.pop(gone, None)
            if self._cache_reclaim is not None:
                self._cache_reclaim.forget(gone)
        limit = asyncio.Semaphore(PARALLEL_SAMPLES)

        async def sample(container_id: str, read: Callable[[], Awaitable[Reading]]) -> None:
            async with limit:
                try:
                    async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                        reading = await read()
                except (SlipwayError, TimeoutError):
                    return  # shown by its age; the supervisor judges whether the guest is silent
            newest = self._record(container_id, reading)
            if self._cache_reclaim is not None:
                await self._cache_reclaim.judge(container_id, newest)

        async with asyncio.TaskGroup() as group:
            for container_id, read in running.items():
                group.create_task(sample(container_id, read))

    def _record(self, container_id: str, reading: Reading) -> ContainerSample:
        previous = self._last.get(container_id)
        self._last[container_id] = reading
        cpu_percent = 0.0
        if previous is not None and reading.time_ns > previous.time_ns:
            used_ns = max(reading.cpu_us - previous.cpu_us, 0) * 1000
            cpu_percent = 100.0 * used_ns / (reading.time_ns - previous.time_ns)
        history = self._history.setdefault(container_id, deque(maxlen=HISTORY_SAMPLES))
        values = {field.name: getattr(reading, field.name) for field in fields(reading)}
        newest = ContainerSample(**values, cpu_percent=cpu_percent)
        history.append(newest)
        return newest
