"""A channel under test: running, over a wire that breaks, or against a guest that misbehaves."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Awaitable, Callable

from app.guest.agent import Agent
from app.guest.agent_types import ContainerSpec, ProcessSpec
from app.guest.channel import ChannelTimeouts, GuestChannel
from app.guest.fake import FakeGuest
from app.guest.fields import FieldList, Fields, encode_fields
from app.guest.frames import Frame, ResyncingFrameParser, encode_frame, encode_message
from app.guest.memory_stream import memory_stream_pair
from app.guest.protocol import FLAG_EOF, Direction, FrameType, Tag
from app.guest.records import RecordDecoder
from app.guest.streams import OutputStream

QUICK = ChannelTimeouts(first_retry_s=0, max_retry_s=0.001, hello_s=5)
DEADLINE_S = 5.0
OUTPUT, STDIN = 1, 2


@contextlib.asynccontextmanager
async def running(
    connect: Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]],
    timeouts: ChannelTimeouts = QUICK,
) -> AsyncGenerator[GuestChannel]:
    channel = GuestChannel(connect, name="vm0", timeouts=timeouts)
    task = asyncio.get_running_loop().create_task(channel.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield channel
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Wire:
    """Connects to a fake guest and can break the connection."""

    def __init__(self, guest: FakeGuest) -> None:
        self.guest = guest
        self.writer: StreamWriter | None = None

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        reader, self.writer = await self.guest.connect()
        return reader, self.writer

    def cut(self) -> None:
        assert self.writer is not None
        self.writer.transport.abort()


def spec(*args: str, stdin: bool = False) -> ContainerSpec:
    process = ProcessSpec(args, OUTPUT, stdin_stream=STDIN if stdin else 0)
    return ContainerSpec("c1", "host", ("layer",), "scratch", process)


async def launch(channel: GuestChannel, *args: str, stdin: bool = False) -> Agent:
    agent = Agent(channel)
    await agent.create(spec(*args, stdin=stdin))
    await agent.start("c1")
    return agent


async def read_all(stream: OutputStream, *, acknowledge: bool = True) -> bytes:
    decoder, received = RecordDecoder(stream.acknowledged_offset), bytearray()
    async for chunk in stream:
        for record in decoder.feed(chunk.data):
            received += record.data
            if acknowledge:
                stream.acknowledge(record.end_offset)
        if chunk.eof and acknowledge:
            stream.acknowledge(chunk.end_offset, eof=True)
    return bytes(received)


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until it holds; the fixtures' deadline ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)


class ScriptedGuest:
    """Answers HELLO properly; everything after is the test's to say."""

    def __init__(self, *, hello: FieldList = (), version: int = 1) -> None:
        self.connection_count = 0
        self.received: asyncio.Queue[Frame] = asyncio.Queue()
        self._more = hello
        self._version = version
        self._parser = ResyncingFrameParser()
        self._ours: tuple[StreamReader, StreamWriter] | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        self.connection_count += 1
        ours, theirs = memory_stream_pair()
        self._ours = ours
        self._task = asyncio.get_running_loop().create_task(self._read(*ours))
        return theirs

    async def _read(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self._parser.feed(data)
            while (frame := self._parser.next_frame()) is not None:
                if frame.type is FrameType.HELLO:
                    nonce = Fields(frame.payload).data(Tag.NONCE)
                    answer: FieldList = [
                        (Tag.NONCE, nonce),
                        (Tag.VERSION, self._version),
                        *self._more,
                    ]
                    for part in encode_message(FrameType.HELLO_ACK, encode_fields(answer)):
                        writer.write(part)
                else:
                    self.received.put_nowait(frame)
        writer.close()

    def say(self, *data: bytes) -> None:
        assert self._ours is not None
        self._ours[1].write(b"".join(data))

    def hang_up(self) -> None:
        assert self._ours is not None
        self._ours[1].transport.abort()

    async def frame(self, frame_type: FrameType) -> Frame:
        while True:
            frame = await self.received.get()
            if frame.type is frame_type:
                return frame

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._ours is not None:
            self._ours[1].transport.abort()


def known_stream(
    stream_id: int, *, direction: Direction = Direction.OUTPUT, base: int = 0, end: int = 0
) -> tuple[Tag, FieldList]:
    return Tag.STREAM, [
        (Tag.STREAM_ID, stream_id),
        (Tag.DIRECTION, direction),
        (Tag.BASE, base),
        (Tag.END, end),
        (Tag.FLAGS, 0),
    ]


def data(offset: int, payload: bytes, *, eof: bool = False) -> bytes:
    flags = FLAG_EOF if eof else 0
    return encode_frame(FrameType.DATA, payload, flags=flags, stream=OUTPUT, offset=offset)
