"""The docker CLI at a pseudo-terminal."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from typing import Self

from tests.integration.docker_lab import DOCKER, DockerClient

DEADLINE_S = 15.0


class DockerTerminal:
    """A command whose input and output are a terminal; everything it shows is kept."""

    def __init__(self, client: DockerClient, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.shown = ""
        self._client = client
        self._args = args
        self._size = (rows, columns)
        self._master = -1
        self._process: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        assert DOCKER is not None
        self._master, slave = pty.openpty()
        self.resize(*self._size)
        self._process = await asyncio.create_subprocess_exec(
            DOCKER,
            *self._args,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._client.env,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._master)
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def signal_size(self) -> None:
        """Tell the command, which leads the terminal's session, of the new size."""
        assert self._process is not None
        self._process.send_signal(signal.SIGWINCH)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO once the other end is closed
            data = os.read(self._master, 65536)
            self.shown += data.decode("utf-8", "replace")
            self._changed.set()
            if data:
                return
        asyncio.get_running_loop().remove_reader(self._master)
        self._changed.set()

    async def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    async def until(self, text: str) -> None:
        """Wait until it shows a text."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while text not in self.shown:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.shown!r}") from None

    async def ended(self) -> int:
        """Wait for its exit code."""
        assert self._process is not None
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"docker {self._args} goes on: {self.shown!r}") from None


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
