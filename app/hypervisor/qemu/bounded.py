"""Files that keep the beginning and the newest of what a pipe brings, and stay below a limit.

QEMU writes consoles and messages to pipes, whose other end the engine empties into such files.
While no engine runs, a pipe takes 64 KiB; then a guest that goes on printing waits on its serial
port. QEMU holds the pipe's read end open itself, so nothing in it is lost with an engine.
"""

import asyncio
import contextlib
import logging
import os
import re
from pathlib import Path

log = logging.getLogger(__name__)

READ_SIZE_BYTES = 64 * 1024
FINISH_DEADLINE_S = 2.0
COALESCE_S = 0.1  # QEMU writes a console byte by byte; the engine wakes ten times a second at most

_GAP = "\n[slipway: {count:>15} bytes of output are not kept here]\n"
_GAP_PATTERN = re.compile(rb"\n\[slipway: ([ \d]{15}) bytes of output are not kept here\]\n")
_GAP_SIZE_BYTES = len(_GAP.format(count=0))


class BoundedFile:
    """Head and tail of a byte stream in one file; blocking."""

    def __init__(self, path: Path, *, head_bytes: int, limit_bytes: int) -> None:
        self.path = path
        self._head_bytes = head_bytes
        self._limit_bytes = limit_bytes
        self._tail_bytes = (limit_bytes - head_bytes) // 2  # after a cut; then it fills up again

    def append(self, data: bytes) -> None:
        """Add bytes; cuts the middle out when the limit would be passed."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size + len(data) <= self._limit_bytes:
            with self.path.open("ab") as file:
                file.write(data)
            return
        kept = (self.path.read_bytes() if size else b"") + data
        head, rest = kept[: self._head_bytes], kept[self._head_bytes :]
        missing = 0
        if match := _GAP_PATTERN.match(rest):
            missing, rest = int(match[1]), rest[match.end() :]
        tail = rest[-(self._tail_bytes - _GAP_SIZE_BYTES) :]
        gap = _GAP.format(count=missing + len(rest) - len(tail)).encode()
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.write_bytes(head + gap + tail)
        temporary.replace(self.path)

    def read_tail(self, size_bytes: int) -> str:
        """The newest output as text; empty if there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - size_bytes))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


class PipeDrain:
    """Empties a pipe into a BoundedFile; owns the pipe's read end."""

    def __init__(self, fd: int, file: BoundedFile) -> None:
        self.file = file
        self.lost_bytes = 0  # that could not be written
        self._fd = fd
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._task = asyncio.create_task(self._run(), name=f"drain {self.file.path.name}")

    async def _run(self) -> None:
        while data := await self._read():
            try:
                await asyncio.to_thread(self.file.append, data)
            except OSError as exc:
                # The pipe is emptied all the same: a full disk must not hold the guest up.
                if self.lost_bytes == 0:
                    log.warning("%s is incomplete from now on: %s", self.file.path, exc)
                self.lost_bytes += len(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COALESCE_S):
                    await self._hurry.wait()

    async def _read(self) -> bytes:
        """The next bytes; empty once nobody can write any more."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._fd, READ_SIZE_BYTES)
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self._fd, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._fd)

    async def finish(self) -> None:
        """Take what is left after the writer's end, then let go."""
        self._hurry.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=FINISH_DEADLINE_S)
        await self.close()

    async def close(self) -> None:
        """Let go at once; what is in the pipe stays for the next engine."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
