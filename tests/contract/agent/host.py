"""A host that speaks docs/channel.md frame by frame, and the agents to speak with."""

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.guest.agent_types import ContainerSpec, ProcessSpec, container_fields, process_fields
from app.guest.fake import FakeGuest
from app.guest.fields import FieldList, Fields, encode_fields
from app.guest.frames import Frame, FrameParser, MessageAssembler, encode_frame, encode_message
from app.guest.hello import HelloInfo, decode_hello
from app.guest.protocol import (
    FLAG_EOF,
    PROTOCOL_VERSION,
    RESYNC_ZERO_BYTES,
    FrameType,
    Op,
    Tag,
)
from app.guest.records import OutputRecord, RecordDecoder
from app.guest.streams import encode_ack

AGENT_SOURCE = Path(__file__).parents[3] / "guest/agent"
DEADLINE_S = 10.0
ENV = ("PATH=/usr/local/bin:/usr/bin:/bin",)
CONTAINER = "c" * 64
OUTPUT, STDIN = 1, 2
WIDE_WINDOW_BYTES = 1 << 24


@dataclass
class AgentUnderTest:
    """An agent: `connect` as often as wanted, one connection at a time."""

    name: str
    connect: Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]
    has_cgroups: bool


def build_native_agent(temporary: pytest.TempPathFactory) -> Path:
    """Compile the agent as an ordinary process, once for all workers, and return the binary."""
    base = temporary.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "agent"
    directory.mkdir(exist_ok=True)
    make = ["make", "-s", "-C", str(AGENT_SOURCE), "native", f"OUT={directory}"]
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "slipway-agent-native"


@contextlib.asynccontextmanager
async def fake_agent_of(guest: FakeGuest) -> AsyncGenerator[AgentUnderTest]:
    """Offer a fake guest; it is closed at the end."""

    async def connect() -> tuple[StreamReader, StreamWriter]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(Unavailable):
                    return await guest.connect()
                await asyncio.sleep(0)  # until it has seen that the one before is closed

    try:
        yield AgentUnderTest("fake", connect, has_cgroups=True)
    finally:
        await guest.close()


@contextlib.asynccontextmanager
async def native_agent(binary: Path, directory: Path) -> AsyncGenerator[AgentUnderTest]:
    """Run the real agent; every process that it started dies with it."""
    socket = directory / "agent.sock"
    command = [str(binary), "--listen", str(socket), "--spool-dir", str(directory)]
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)

    async def connect() -> tuple[StreamReader, StreamWriter]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    return await asyncio.open_unix_connection(socket)
                await asyncio.sleep(0.005)  # until it listens

    try:
        yield AgentUnderTest("native", connect, has_cgroups=False)
    finally:
        _kill_tree(process.pid)
        await process.wait()


def _kill_tree(pid: int) -> None:
    """Kill a process and its descendants; the agent is a subreaper, so all of them show."""
    children = []
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        children = [int(child) for child in text.split()]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        _kill_tree(child)


def container_spec(
    *args: str, stdin: bool = False, tty: bool = False, output: int = OUTPUT
) -> ContainerSpec:
    process = ProcessSpec(args, output, env=ENV, stdin_stream=STDIN if stdin else 0, tty=tty)
    return ContainerSpec(CONTAINER, "host", ("layer0",), "scratch", process)


class RawHost:
    """One connection of a host that does nothing by itself."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.hello: HelloInfo
        self._reader = reader
        self._writer = writer
        self._parser = FrameParser()
        self._assembler = MessageAssembler()
        self._ids = itertools.count(int.from_bytes(os.urandom(4), "little") << 32)
        self._tokens = itertools.count(1)
        self.seen: list[Frame] = []  # whole messages and stream frames, in order, not yet taken

    async def send(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))
        await self._writer.drain()

    async def say_hello(
        self, *, before: bytes = bytes(RESYNC_ZERO_BYTES), versions: tuple[int, int] | None = None
    ) -> HelloInfo:
        """Resynchronise; only what follows HELLO_ACK is seen later."""
        low, high = versions or (PROTOCOL_VERSION, PROTOCOL_VERSION)
        nonce = os.urandom(16)
        fields: FieldList = [(Tag.NONCE, nonce), (Tag.VERSION_MIN, low), (Tag.VERSION_MAX, high)]
        await self.send(before, encode_frame(FrameType.HELLO, encode_fields(fields)))
        async with asyncio.timeout(DEADLINE_S):
            while not self._parser.seek_hello_ack(nonce):
                await self._feed()
        self.seen.clear()
        message = await self.take(lambda frame: frame.type is FrameType.HELLO_ACK)
        self.hello = decode_hello(message.payload)
        return self.hello

    async def _feed(self) -> None:
        data = await self._reader.read(1 << 16)
        if not data:
            raise ConnectionError("the agent has closed the connection")
        self._parser.feed(data)

    async def take(self, wanted: Callable[[Frame], bool]) -> Frame:
        """Wait for a frame (a whole message) and take it; the others stay in `seen`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for index, frame in enumerate(self.seen):
                    if wanted(frame):
                        return self.seen.pop(index)
                while (frame_or_none := self._parser.next_frame()) is not None:
                    self._keep(frame_or_none)
                    break
                else:
                    await self._feed()

    def _keep(self, frame: Frame) -> None:
        if frame.type in (FrameType.DATA, FrameType.ACK):
            self.seen.append(frame)
        elif (message := self._assembler.add(frame)) is not None:
            self.seen.append(frame._replace(payload=message))

    async def take_closed(self) -> None:
        """Wait until the agent closes the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while await self._reader.read(1 << 16):
                pass

    async def settle(self) -> None:
        """Wait until the agent has read and answered all that was sent, into `seen`."""
        token = next(self._tokens)
        await self.send(encode_frame(FrameType.PING, offset=token))
        await self.take(lambda frame: frame.type is FrameType.PONG and frame.offset == token)

    def next_id(self) -> int:
        return next(self._ids)

    async def request(self, op: int, fields: FieldList, *, request_id: int | None = None) -> Fields:
        number = self.next_id() if request_id is None else request_id
        payload = encode_fields([(Tag.OP, op), *fields])
        await self.send(*encode_message(FrameType.REQUEST, payload, offset=number))
        return await self.answer(number)

    async def answer(self, number: int) -> Fields:
        frame = await self.take(lambda f: f.type is FrameType.RESPONSE and f.offset == number)
        return Fields(frame.payload)

    async def ok(self, op: int, fields: FieldList, *, request_id: int | None = None) -> Fields:
        fields_back = await self.request(op, fields, request_id=request_id)
        assert fields_back.number(Tag.ERRNO) == 0, fields_back.text(Tag.MESSAGE, "")
        return fields_back

    async def signal(self, number: int, process_id: str = "init") -> Fields:
        fields: FieldList = [
            (Tag.CONTAINER, CONTAINER),
            (Tag.PROCESS_ID, process_id),
            (Tag.SIGNAL, number),
        ]
        return await self.request(Op.SIGNAL, fields)

    async def resize(self, rows: int, columns: int) -> Fields:
        fields: FieldList = [
            (Tag.CONTAINER, CONTAINER),
            (Tag.PROCESS_ID, "init"),
            (Tag.ROWS, rows),
            (Tag.COLUMNS, columns),
        ]
        return await self.request(Op.RESIZE, fields)

    async def run(self, *args: str, stdin: bool = False, tty: bool = False) -> None:
        """Create and start the container."""
        await self.ok(Op.CREATE, container_fields(container_spec(*args, stdin=stdin, tty=tty)))
        await self.ok(Op.START, [(Tag.CONTAINER, CONTAINER)])

    async def exec(self, process_id: str, *args: str, output: int, stdin: int = 0) -> Fields:
        return await self.request(
            Op.EXEC, exec_fields(process_id, *args, output=output, stdin=stdin)
        )

    async def ack(self, stream: int, offset: int, window: int, *, eof: bool = False) -> None:
        await self.send(encode_ack(stream, offset, window, eof=eof))

    async def write(self, stream: int, offset: int, data: bytes, *, eof: bool = False) -> None:
        flags = FLAG_EOF if eof else 0
        await self.send(
            encode_frame(FrameType.DATA, data, flags=flags, stream=stream, offset=offset)
        )

    async def event(self, kind: int) -> Frame:
        """Take the next event of that kind."""
        return await self.take(
            lambda f: f.type is FrameType.EVENT and Fields(f.payload).number(Tag.EVENT_KIND) == kind
        )

    async def data(self, stream: int) -> Frame:
        return await self.take(lambda f: f.type is FrameType.DATA and f.stream == stream)

    async def output(
        self, stream: int, *, offset: int = 0, window: int = WIDE_WINDOW_BYTES
    ) -> list[OutputRecord]:
        """Read a stream to its end, acknowledging records; leaves the end unacknowledged."""
        await self.ack(stream, offset, window)
        decoder, records = RecordDecoder(offset), list[OutputRecord]()
        while True:
            frame = await self.data(stream)
            assert frame.offset == decoder.next_offset
            fresh = decoder.feed(frame.payload)
            records += fresh
            if frame.flags & FLAG_EOF:
                assert decoder.is_between_records
                return records
            if fresh:
                await self.ack(stream, fresh[-1].end_offset, window)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def exec_fields(process_id: str, *args: str, output: int, stdin: int = 0) -> FieldList:
    spec = ProcessSpec(args, output, env=ENV, stdin_stream=stdin)
    return [
        (Tag.CONTAINER, CONTAINER),
        (Tag.PROCESS_ID, process_id),
        (Tag.PROCESS_SPEC, process_fields(spec)),
    ]


def joined(records: list[OutputRecord]) -> bytes:
    return b"".join(record.data for record in records)


Connect = Callable[[], Awaitable[RawHost]]


async def reconnect(host: RawHost, connect: Connect) -> RawHost:
    """Close, open the next connection and say HELLO."""
    await host.close()
    opened = await connect()
    await opened.say_hello()
    return opened
