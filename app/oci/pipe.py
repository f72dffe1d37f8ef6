"""Bytes from the event loop to a worker thread, with a bound on what lies between."""

import asyncio
import threading
from collections import deque

from app.core.units import MIB
from app.oci.streams import ImportCancelled

HELD_MAX_BYTES = 4 * MIB


class Pipe:
    """Written in the event loop, read in one thread as a `Source`."""

    def __init__(self, held_max_bytes: int = HELD_MAX_BYTES) -> None:
        self._held_max_bytes = held_max_bytes
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_ended = False
        self._is_broken = False

    async def write(self, data: bytes) -> bool:
        """Hand over; waits for room. False once nobody reads any more."""
        await self._room.wait()
        with self._changed:
            if self._is_broken:
                return False
            self._pieces.append(data)
            self._held_bytes += len(data)
            if self._held_bytes >= self._held_max_bytes:
                self._room.clear()
            self._changed.notify()
        return True

    def end(self) -> None:
        """No more will come; from any thread."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()

    def break_off(self) -> None:
        """The reader gives up, or shall; from any thread. Idempotent."""
        with self._changed:
            self._is_broken = True
            self._pieces.clear()
            self._changed.notify()
        self._loop.call_soon_threadsafe(self._room.set)

    def read(self, size: int, /) -> bytes:
        """As a `Source`; blocks until there is something.

        Raises:
            ImportCancelled: The pipe was broken off.
        """
        with self._changed:
            while not self._pieces and not self._is_ended and not self._is_broken:
                self._changed.wait()
            if self._is_broken:
                raise ImportCancelled
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            was_full = self._held_bytes >= self._held_max_bytes
            self._held_bytes -= len(piece)
            has_room = was_full and self._held_bytes < self._held_max_bytes
        if has_room:
            self._loop.call_soon_threadsafe(self._room.set)
        return piece
