"""One connection of a fake VM's channel: two socket pairs and what pumps between them.

Sits between engine and guest so that a connection can be cut at any byte and the rest of a cut
chunk carried over to the next one, which is what QEMU's virtio-serial does.
"""

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

CHUNK_SIZE_BYTES = 4096
GUEST_EXIT_DEADLINE_S = 5.0  # for the guest's code to return after the host has gone

ServeGuest = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@dataclass
class Pump:
    """One direction.

    Attributes:
        left_bytes: How many bytes may still pass before the connection is cut; None: any number.
        rest: After the end, what was taken from the sender and not delivered.
    """

    left_bytes: int | None = None
    rest: bytes = b""

    async def run(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Move bytes until either side goes or the cut is reached."""
        chunk, self.rest = self.rest, b""
        with contextlib.suppress(ConnectionError):
            while chunk or (chunk := await reader.read(CHUNK_SIZE_BYTES)):
                if self.left_bytes is not None and len(chunk) >= self.left_bytes:
                    head, self.rest = chunk[: self.left_bytes], chunk[self.left_bytes :]
                    writer.write(head)
                    await writer.drain()
                    return
                if self.left_bytes is not None:
                    self.left_bytes -= len(chunk)
                writer.write(chunk)
                await writer.drain()
                chunk = b""


@dataclass(frozen=True)
class Outcome:
    """How a connection ended: by the host or the machine, or by the guest's code."""

    guest_returned: bool
    guest_error: Exception | None


@dataclass
class FakeLink:
    """A connection; `host` is the engine's end of it."""

    host: tuple[StreamReader, StreamWriter]
    _near: tuple[StreamReader, StreamWriter]
    _far: tuple[StreamReader, StreamWriter]
    _guest: tuple[StreamReader, StreamWriter]
    _serve: ServeGuest
    to_host: Pump = field(default_factory=Pump)
    to_guest: Pump = field(default_factory=Pump)
    task: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def open(cls, serve: ServeGuest, *, to_host: bytes, to_guest: bytes) -> "FakeLink":
        """Connect both sides; `to_host` and `to_guest` are delivered first."""
        sockets = [*socket.socketpair(), *socket.socketpair()]
        streams: list[tuple[StreamReader, StreamWriter]] = []
        try:
            for each in sockets:
                streams.append(await asyncio.open_unix_connection(sock=each))
        except BaseException:  # cancelled between two of them
            for _, writer in streams:
                writer.close()
            for each in sockets:
                each.close()
            raise
        host, near, far, guest = streams
        return cls(host, near, far, guest, serve, Pump(rest=to_host), Pump(rest=to_guest))

    def stop(self) -> None:
        """Break the connection; `run()` then returns."""
        self._stopping.set()

    async def run(self) -> Outcome:
        """Serve until the host, the guest or `stop()` ends it; closes everything."""
        guest = asyncio.create_task(self._run_guest())
        pumps = [
            asyncio.create_task(self.to_host.run(self._far[0], self._near[1])),
            asyncio.create_task(self.to_guest.run(self._near[0], self._far[1])),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        tasks = {guest, *pumps, stopping}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if guest.done():  # its last words still reach the host
                await asyncio.wait({pumps[0], stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended_by_guest = guest.done() and not self._stopping.is_set()
            await self._close(guest, [*pumps, stopping])
        return Outcome(
            guest_returned=ended_by_guest,
            guest_error=guest.result() if ended_by_guest else None,
        )

    async def _run_guest(self) -> Exception | None:
        """Run the guest's code; an exception of it is a panic, not our failure."""
        reader, writer = self._guest
        try:
            await self._serve(reader, writer)
        except Exception as error:  # noqa: BLE001 -- a border: any fault of the guest is a panic
            return error
        finally:
            writer.close()
        return None

    async def _close(
        self, guest: asyncio.Task[Exception | None], helpers: list[asyncio.Task[object]]
    ) -> None:
        for helper in helpers:
            helper.cancel()
        for _, writer in (self._near, self._far):
            writer.close()
        await asyncio.wait({guest}, timeout=GUEST_EXIT_DEADLINE_S)
        guest.cancel()
        await asyncio.gather(guest, *helpers, return_exceptions=True)
        for _, writer in (self._near, self._far, self._guest):
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
