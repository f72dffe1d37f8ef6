"""A small, synchronous host for tests of the agent itself.

It speaks docs/channel.md independently of `app.guest.channel`, so that a mistake shared by both
sides of the product is seen. One connection at a time, everything with a deadline.
"""

import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.guest.protocol import (
    HEADER_SIZE_BYTES,
    MAGIC,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    RECORD_HEADER_SIZE_BYTES,
    FrameType,
    Op,
    Tag,
)

Value = int | str | bytes | list[tuple[Tag, "Value"]]
Fields = list[tuple[Tag, Value]]
HEADER = struct.Struct("<4sBBHIQI")
FLAG_MORE, FLAG_EOF = 1, 2


def encode(fields: Fields) -> bytes:
    """Fields as bytes: numbers are u64, lists nested groups."""
    out = bytearray()
    for tag, value in fields:
        if isinstance(value, int):
            data = struct.pack("<Q", value & (2**64 - 1))
        elif isinstance(value, str):
            data = value.encode()
        elif isinstance(value, bytes):
            data = value
        else:
            data = encode(value)
        out += struct.pack("<HHI", tag, 0, len(data)) + data
    return bytes(out)


def decode(data: bytes) -> list[tuple[int, bytes]]:
    """One level of fields, values as raw bytes."""
    found, at = [], 0
    while at < len(data):
        tag, zero, length = struct.unpack_from("<HHI", data, at)
        assert zero == 0
        found.append((tag, data[at + 8 : at + 8 + length]))
        at += 8 + length
    assert at == len(data)
    return found


def number(data: bytes) -> int:
    """A u64 field's value."""
    return int(struct.unpack("<Q", data)[0])


def frame(
    type_: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, offset: int = 0
) -> bytes:
    """One sealed frame."""
    head = struct.pack("<4sBBHIQ", MAGIC, type_, flags, len(payload), stream, offset)
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


@dataclass
class Received:
    """One frame from the agent."""

    type: int
    flags: int
    stream: int
    offset: int
    payload: bytes


class RequestError(Exception):
    """The agent answered a request with an errno."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(f"errno {errno}: {message}")
        self.errno = errno
        self.message = message


@dataclass
class Output:
    """What has come of one output stream."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def records(self) -> list[tuple[int, int, bytes]]:
        """(time_ns, source, bytes) of every complete record."""
        found, at = [], 0
        while at + RECORD_HEADER_SIZE_BYTES <= len(self.data):
            time_ns, length, source = struct.unpack_from("<QIB", self.data, at)
            at += RECORD_HEADER_SIZE_BYTES
            found.append((time_ns, source, bytes(self.data[at : at + length])))
            at += length
        return found

    def text(self, source: int | None = None) -> str:
        """The bytes of one source, or of both in order."""
        return b"".join(d for _, s, d in self.records() if source in (None, s)).decode()


class AgentHost:
    """A host connected to an agent; `connect` makes a new socket each time."""

    window_bytes = 1 << 20

    def __init__(self, connect: Callable[[], socket.socket], *, deadline_s: float = 10) -> None:
        self._connect = connect
        self._deadline_s = deadline_s
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._next_id = int.from_bytes(os.urandom(4), "little") << 32
        self.hello: list[tuple[int, bytes]] = []
        self.answers: dict[int, bytes] = {}
        self._partial: dict[int, bytearray] = {}
        self.events: dict[int, list[tuple[int, bytes]]] = {}
        self.outputs: dict[int, Output] = {}
        self.input_limits: dict[int, tuple[int, int, bool]] = {}
        self.pongs: list[int] = []
        self.auto_ack = True

    def open(self) -> None:
        """Connects and exchanges HELLO; grants windows for known output streams."""
        self.close()
        self._socket = self._connect()
        self._socket.settimeout(0.05)
        self._buffer.clear()
        self._partial.clear()
        self.hello = []
        nonce = os.urandom(16)
        hello = encode([(Tag.NONCE, nonce), (Tag.VERSION_MIN, 1), (Tag.VERSION_MAX, 1)])
        self.send(bytes(MAX_FRAME_BYTES) + frame(FrameType.HELLO, hello))
        wanted = encode([(Tag.NONCE, nonce)])
        whole = bytearray()
        self.until(lambda: self._find_hello(wanted))
        for got in self._frames():
            whole += got.payload
            if not got.flags & FLAG_MORE:
                break
            self.until(lambda: len(self._buffer) >= HEADER_SIZE_BYTES)
        self.hello = decode(bytes(whole))
        for stream, output in self.outputs.items():
            if not output.ended:
                self.ack(stream)

    def _find_hello(self, wanted: bytes) -> bool:
        at = self._buffer.find(wanted)
        if at < HEADER_SIZE_BYTES:
            return False
        del self._buffer[: at - HEADER_SIZE_BYTES]
        length = int(struct.unpack_from("<H", self._buffer, 6)[0])
        return len(self._buffer) >= HEADER_SIZE_BYTES + length

    def close(self) -> None:
        """Hangs up."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> None:
        """Writes all, reading meanwhile if the agent won't take it."""
        assert self._socket
        view = memoryview(data)
        deadline = time.monotonic() + self._deadline_s
        while view:
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                assert time.monotonic() < deadline, "the agent takes nothing"

    def _receive(self) -> None:
        assert self._socket
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return
        if not data:
            raise ConnectionError("the agent hung up")
        self._buffer += data

    def _frames(self) -> Iterator[Received]:
        while len(self._buffer) >= HEADER_SIZE_BYTES:
            magic, type_, flags, length, stream, offset, crc = HEADER.unpack_from(self._buffer)
            assert magic == MAGIC
            if len(self._buffer) < HEADER_SIZE_BYTES + length:
                return
            payload = bytes(self._buffer[HEADER_SIZE_BYTES : HEADER_SIZE_BYTES + length])
            head = bytes(self._buffer[: HEADER_SIZE_BYTES - 4])
            assert zlib.crc32(head + payload) == crc
            del self._buffer[: HEADER_SIZE_BYTES + length]
            yield Received(type_, flags, stream, offset, payload)

    def until(self, done: Callable[[], bool], deadline_s: float | None = None) -> None:
        """Handles what comes until `done()`; fails at the deadline."""
        deadline = time.monotonic() + (deadline_s or self._deadline_s)
        while not done():
            assert time.monotonic() < deadline, "deadline"
            self._receive()
            if self.hello:
                self.pump()

    def idle(self, duration_s: float) -> None:
        """Handles what comes for a while: to see that something does not happen."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            self._receive()
            self.pump()

    def pump(self) -> None:
        """Handles the frames that have come."""
        for got in self._frames():
            self._handle(got)

    def _handle(self, got: Received) -> None:
        if got.type == FrameType.RESPONSE:
            whole = self._partial.setdefault(got.offset, bytearray())
            whole += got.payload
            if not got.flags & FLAG_MORE:
                self.answers[got.offset] = bytes(self._partial.pop(got.offset))
        elif got.type == FrameType.EVENT:
            self.events[got.offset] = decode(got.payload)
        elif got.type == FrameType.PONG:
            self.pongs.append(got.offset)
        elif got.type == FrameType.ACK:
            window = struct.unpack("<I", got.payload)[0]
            self.input_limits[got.stream] = (
                got.offset,
                got.offset + window,
                bool(got.flags & FLAG_EOF),
            )
        elif got.type == FrameType.DATA:
            self._data(got)

    def _data(self, got: Received) -> None:
        output = self.outputs[got.stream]
        known = len(output.data) - got.offset
        assert known >= 0, "a gap in the stream"
        output.data += got.payload[known:]
        if got.flags & FLAG_EOF and got.offset + len(got.payload) == len(output.data):
            output.ended = True
        if self.auto_ack:
            self.ack(got.stream)

    def ack(self, stream: int, window_bytes: int | None = None) -> None:
        """Acknowledges all that has come of the stream."""
        output = self.outputs.setdefault(stream, Output())
        window = struct.pack("<I", self.window_bytes if window_bytes is None else window_bytes)
        flags = FLAG_EOF if output.ended else 0
        self.send(frame(FrameType.ACK, window, flags=flags, stream=stream, offset=len(output.data)))

    def post(self, op: Op, fields: Fields) -> int:
        """Sends a request; returns its id."""
        self._next_id += 1
        self.post_again(self._next_id, op, fields)
        return self._next_id

    def post_again(self, request: int, op: Op, fields: Fields) -> None:
        """Sends a request with a given id, fragmented as needed."""
        data = encode([(Tag.OP, int(op)), *fields])
        for at in range(0, len(data), MAX_PAYLOAD_BYTES):
            more = FLAG_MORE if at + MAX_PAYLOAD_BYTES < len(data) else 0
            part = data[at : at + MAX_PAYLOAD_BYTES]
            self.send(frame(FrameType.REQUEST, part, flags=more, offset=request))

    def result(self, request: int, deadline_s: float | None = None) -> list[tuple[int, bytes]]:
        """Waits for an answer; its fields after ERRNO."""
        self.until(lambda: request in self.answers, deadline_s)
        fields = decode(self.answers[request])
        assert fields[0][0] == Tag.ERRNO
        errno = number(fields[0][1])
        if errno:
            raise RequestError(errno, dict(fields)[Tag.MESSAGE].decode())
        return fields[1:]

    def call(
        self, op: Op, fields: Fields, deadline_s: float | None = None
    ) -> list[tuple[int, bytes]]:
        """Sends a request and waits for its answer."""
        return self.result(self.post(op, fields), deadline_s)

    def write(self, stream: int, data: bytes, offset: int, *, eof: bool = False) -> None:
        """Sends DATA on an input stream."""
        self.send(
            frame(FrameType.DATA, data, flags=FLAG_EOF if eof else 0, stream=stream, offset=offset)
        )

    def exit_event(self, container: str, process: str = "init") -> dict[int, bytes] | None:
        """The PROCESS_EXITED event, if it has come."""
        for fields in self.events.values():
            event = dict(fields)
            if (
                number(event[Tag.EVENT_KIND]) == 1
                and event[Tag.CONTAINER] == container.encode()
                and event[Tag.PROCESS_ID] == process.encode()
            ):
                return event
        return None
