"""Slows down whoever guesses, in memory of bounded size."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import TooManyRequests

KEYS_KEPT = 10_000
FORGET_AFTER_S = 3600.0


@dataclass
class _Attempts:
    count: int = 0
    last_s: float = 0.0
    allowed_at_s: float = 0.0


class Throttle:
    """Counts attempts by key; past the free ones each must wait twice as long as the one before.

    Args:
        free_attempts: How many may follow each other at once.
        longest_wait_s: Where doubling from one second ends.
        clock_s: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        free_attempts: int,
        longest_wait_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free_attempts = free_attempts
        self._longest_wait_s = longest_wait_s
        self._clock_s = clock_s
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    def check(self, key: str) -> None:
        """Refuse an attempt that comes too early; does not count it.

        Raises:
            TooManyRequests: The key must wait.
        """
        attempts = self._attempts.get(key)
        if attempts is None:
            return
        wait_s = attempts.allowed_at_s - self._clock_s()
        if wait_s > 0:
            raise TooManyRequests(
                "Too many failed attempts to sign in",
                retry_after_s=math.ceil(wait_s),
                advice=f"Try again in {math.ceil(wait_s)} seconds.",
            )

    def count(self, key: str) -> None:
        """Count an attempt as failed; before its outcome is known, so that many at once count."""
        now_s = self._clock_s()
        attempts = self._attempts.setdefault(key, _Attempts())
        if now_s - attempts.last_s > FORGET_AFTER_S:
            attempts.count = 0
        attempts.count += 1
        attempts.last_s = now_s
        over = attempts.count - self._free_attempts
        if over >= 0:
            wait_s = min(2.0 ** min(over, 30), self._longest_wait_s)
            attempts.allowed_at_s = now_s + wait_s
        self._attempts.move_to_end(key)
        while len(self._attempts) > KEYS_KEPT:
            self._attempts.popitem(last=False)

    def clear(self, key: str) -> None:
        """Forget a key whose attempt succeeded."""
        self._attempts.pop(key, None)


def client_key(client: str) -> str:
    """What counts as one client: an address, or a /64 of IPv6, which one customer has whole."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:255]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
