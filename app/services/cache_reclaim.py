"""Gives page cache of containers that do nothing back to the host.

A guest keeps what it once read for as long as it has memory; the host pays for it. Who is at work
keeps its cache: a container must have been idle for `IDLE_S`, and after a round its cache must
have grown by `GROWTH_BYTES` before there is another one.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.core.errors import SlipwayError
from app.core.units import MIB
from app.services.stats import ContainerSample

IDLE_CPU_PERCENT = 1.0
IDLE_S = 60.0
KEPT_BYTES = 16 * MIB  # of cache: what the next request of a service touches first
GROWTH_BYTES = 32 * MIB

logger = logging.getLogger(__name__)

Reclaim = Callable[[str, int], Awaitable[int]]
"""Takes back that many bytes of a container's cache; gives how many it was."""


@dataclass
class _Watched:
    idle_since_ns: int | None = None
    left_bytes: int = KEPT_BYTES  # of cache after the last round


class CacheReclaim:
    """Judges each sample, and reclaims at most once per idle time and growth of the cache."""

    def __init__(self, reclaim: Reclaim) -> None:
        self._reclaim = reclaim
        self._watched: dict[str, _Watched] = {}

    def forget(self, container_id: str) -> None:
        """The container has ended. Idempotent."""
        self._watched.pop(container_id, None)

    async def judge(self, container_id: str, sample: ContainerSample) -> None:
        """Look at a new sample and reclaim if it is time; never raises for a guest's fault."""
        watched = self._watched.setdefault(container_id, _Watched())
        if sample.cpu_percent > IDLE_CPU_PERCENT:
            watched.idle_since_ns = None
            return
        if watched.idle_since_ns is None:
            watched.idle_since_ns = sample.time_ns
        cache_bytes = sample.memory_file_bytes
        watched.left_bytes = max(min(watched.left_bytes, cache_bytes), KEPT_BYTES)
        is_long_idle = sample.time_ns - watched.idle_since_ns >= IDLE_S * 1e9
        if not is_long_idle or cache_bytes < watched.left_bytes + GROWTH_BYTES:
            return
        try:
            given_back = await self._reclaim(container_id, cache_bytes - KEPT_BYTES)
        except SlipwayError as error:
            logger.info("Cache of %s stays: %s", container_id[:12], error.message)
            given_back = 0
        watched.left_bytes = max(cache_bytes - given_back, KEPT_BYTES)
        watched.idle_since_ns = None
