"""Connecting to the unix sockets of a QEMU, which serves one client at a time on each."""

import asyncio
import socket
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Callable

from app.core.errors import DeadlineExceeded, Unavailable

RETRY_INTERVAL_S = 0.02


async def connect_unix(address: str, *, what: str, deadline_s: float) -> socket.socket:
    """Connect, waiting while the backlog is full.

    asyncio's own connect takes the EAGAIN of a full backlog for progress; hence this loop.

    Raises:
        Unavailable: Nobody listens.
        DeadlineExceeded: The backlog stayed full.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + deadline_s
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            client.connect(address)
        except BlockingIOError:
            client.close()
        except OSError as exc:
            client.close()
            raise Unavailable(f"{what} cannot be reached: {exc.strerror}") from exc
        else:
            return client
        if loop.time() >= give_up_at:
            raise DeadlineExceeded(
                f"{what} did not take a connection within {deadline_s:g} s",
                advice="Another program may be connected to it.",
            )
        await asyncio.sleep(RETRY_INTERVAL_S)


class _Protocol(StreamReaderProtocol):
    """Calls back once the connection is gone, however it went."""

    def __init__(self, reader: StreamReader, on_lost: Callable[[], None]) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()


async def open_streams(
    client: socket.socket, on_lost: Callable[[], None]
) -> tuple[StreamReader, StreamWriter]:
    """Streams over a connected socket; `on_lost` is called when the connection has ended."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(loop=loop)
    transport, protocol = await loop.create_unix_connection(
        lambda: _Protocol(reader, on_lost), sock=client
    )
    return reader, StreamWriter(transport, protocol, reader, loop)
