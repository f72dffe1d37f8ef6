"""Boot consoles: read while the VM runs, kept beside the container after its end."""

import asyncio
import contextlib
from pathlib import Path

from app.core.ids import SHORT_ID_LENGTH
from app.core.units import KIB

KEPT_BYTES = 256 * KIB


class ConsoleArchive:
    """The console of each container's last VM, at most KEPT_BYTES: the newest."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open(self) -> None:
        """Make the directory."""
        await asyncio.to_thread(self._root.mkdir, mode=0o700, parents=True, exist_ok=True)

    async def keep(self, console: Path, container_id: str) -> None:
        """Copy a VM's console before its run directory goes; a missing one keeps nothing."""
        await asyncio.to_thread(self._keep, console, self._path(container_id))

    async def read(self, container_id: str) -> bytes:
        """The kept console; empty if no VM has ended yet."""
        return await read_console(self._path(container_id))

    async def remove(self, container_id: str) -> None:
        """Forget a container's console. Idempotent."""
        await asyncio.to_thread(self._path(container_id).unlink, missing_ok=True)

    def _path(self, container_id: str) -> Path:
        if len(container_id) < SHORT_ID_LENGTH or not container_id.isalnum():
            raise ValueError(f"{container_id!r} is not a container id")
        return self._root / f"{container_id}.log"

    def _keep(self, console: Path, kept: Path) -> None:
        tail = _read_tail(console)
        if tail:
            partial = kept.with_suffix(".partial")
            partial.write_bytes(tail)
            partial.replace(kept)


async def read_console(console: Path) -> bytes:
    """The newest KEPT_BYTES of a console file; empty if there is none."""
    return await asyncio.to_thread(_read_tail, console)


def _read_tail(console: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError), console.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(max(size_bytes - KEPT_BYTES, 0))
        return file.read(KEPT_BYTES)
    return b""
