"""Space kept back, so that a full disk can be cleaned up from within.

Removing what fills the disk is itself recorded, and a record needs some space. The ballast is a
file of a fixed size that is given up for that, and laid in again once there is room.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from app.core.errors import ResourceExhausted
from app.core.units import MIB

SIZE_BYTES = 32 * MIB
ROOM_FACTOR = 4  # laid in only where so many times its size is free

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Ballast:
    """One file of SIZE_BYTES in the data directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def lay_in(self) -> None:
        """Take the space, if it is not taken and there is enough; else do nothing."""
        await asyncio.to_thread(self._lay_in)

    async def give_up(self) -> bool:
        """Set the space free; False if there was none to set free."""
        return await asyncio.to_thread(self._give_up)

    async def try_twice(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do what frees space; where the disk is too full for it, give the ballast up for it.

        Raises:
            ResourceExhausted: There was no ballast, or it was not enough.
        """
        try:
            return await work()
        except ResourceExhausted:
            if not await self.give_up():
                raise
            logger.warning("The disk is full: %d MiB kept back are used up", SIZE_BYTES // MIB)
            return await work()

    def _lay_in(self) -> None:
        if self._path.exists():
            return
        if shutil.disk_usage(self._path.parent).free < ROOM_FACTOR * SIZE_BYTES:
            return
        partial = self._path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE_BYTES)
            partial.replace(self._path)
        except OSError as error:
            logger.warning("No space can be kept back: %s", error)
            partial.unlink(missing_ok=True)

    def _give_up(self) -> bool:
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
