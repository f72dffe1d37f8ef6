"""A connected pair of byte streams in memory, for guests that are played in this process.

Behaves like a stream socket: flow control, end of file on close, broken pipe when the other end has
gone. Costs no file descriptor, so thousands may be open.
"""

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Iterable

from app.core.units import KIB

READ_LIMIT_BYTES = 64 * KIB  # a reader holds up to twice as much before the writer waits
Connection = tuple[StreamReader, StreamWriter]


class _MemoryTransport(asyncio.Transport):
    """One end: what is written here is fed to the other end's reader."""

    def __init__(self, protocol: StreamReaderProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.peer: _MemoryTransport
        self._buffer = bytearray()
        self._high_bytes = READ_LIMIT_BYTES
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False
        self._writer_waits = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        if self.peer._is_closing:
            self._lose(BrokenPipeError("the other end is closed"))
            return
        self._buffer += data
        self._deliver()
        if len(self._buffer) > self._high_bytes and not self._writer_waits:
            self._writer_waits = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _deliver(self) -> None:
        peer = self.peer
        if not peer._is_reading or peer._is_closing:
            return
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            peer.protocol.data_received(data)
        if self._writer_waits:
            self._writer_waits = False
            self.protocol.resume_writing()
        if self._is_closing and not self._is_lost:
            peer.protocol.eof_received()
            self._lose(None)

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self.peer._deliver()

    def is_reading(self) -> bool:
        return self._is_reading

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._deliver()
            if self.peer._is_closing:
                self._lose(None)

    def abort(self) -> None:
        if self._is_lost:
            return
        self._buffer.clear()
        if not self.peer._is_closing:
            self.peer.protocol.eof_received()
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        self._is_closing = True
        if not self._is_lost:
            self._is_lost = True
            self._buffer.clear()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002 - asyncio's signature
        self._high_bytes = READ_LIMIT_BYTES if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)


def memory_stream_pair() -> tuple[Connection, Connection]:
    """Return the two ends; each reader must be kept as long as its end is used."""
    loop = asyncio.get_running_loop()
    readers = [StreamReader(limit=READ_LIMIT_BYTES, loop=loop) for _ in range(2)]
    protocols = [StreamReaderProtocol(reader, loop=loop) for reader in readers]
    ends = [_MemoryTransport(protocol) for protocol in protocols]
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    for protocol, end in zip(protocols, ends, strict=True):
        protocol.connection_made(end)
    first, second = (
        (reader, StreamWriter(end, protocol, reader, loop))
        for reader, end, protocol in zip(readers, ends, protocols, strict=True)
    )
    return first, second
