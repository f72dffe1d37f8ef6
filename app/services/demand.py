"""Starts as they come: how many come together lately, and whether one is under way now."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 5.0  # starts so close together would have to find as many VMs waiting
HALF_LIFE_S = 120.0  # of what such a peak asks for
QUIET_S = 0.3  # after a start: what it began goes first
STALE_S = 120.0  # a start that was under way for so long holds nobody back any more


class Demand:
    """Told of every start; asked by the pool.

    Attributes:
        changed: Set with every start that begins or ends.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.changed = asyncio.Event()
        self._clock_s = clock_s
        self._recent_s: deque[float] = deque()
        self._peak = 0.0
        self._peak_at_s = 0.0
        self._under_way_since_s: dict[str, float] = {}
        self._quiet_at_s = 0.0

    def note(self) -> None:
        """A start is asked for."""
        now_s = self._clock_s()
        self._recent_s.append(now_s)
        while self._recent_s[0] < now_s - WINDOW_S:
            self._recent_s.popleft()
        self._peak, self._peak_at_s = max(self.peak, len(self._recent_s)), now_s

    def begin(self, container_id: str) -> None:
        """A start is under way; again, if it has failed and is tried in another way."""
        self._under_way_since_s[container_id] = self._clock_s()
        self.changed.set()

    def end(self, container_id: str) -> None:
        """It has succeeded or failed. Idempotent."""
        if self._under_way_since_s.pop(container_id, None) is not None:
            self._quiet_at_s = self._clock_s() + QUIET_S
            self.changed.set()

    @property
    def peak(self) -> float:
        """The most starts within WINDOW_S, halved with every HALF_LIFE_S since."""
        return self._peak * math.exp2((self._peak_at_s - self._clock_s()) / HALF_LIFE_S)

    def busy_for_s(self) -> float:
        """Seconds until work for nobody in particular is welcome, as far as can be told now."""
        now_s = self._clock_s()
        busy_s = self._quiet_at_s - now_s
        for since_s in self._under_way_since_s.values():
            busy_s = max(busy_s, since_s + STALE_S - now_s)
        return max(busy_s, 0.0)
