"""Streams over the channel."""

import asyncio

import pytest

from app.core.errors import Conflict, CorruptData, InvalidArgument, NotFound
from app.guest.agent import Agent
from app.guest.agent_types import ProcessExited, ProcessSpec
from app.guest.channel import ChannelTimeouts, GuestChannel
from app.guest.fake import FakeGuest
from app.guest.fields import encode_fields
from app.guest.frames import encode_frame
from app.guest.protocol import FLAG_EOF, Direction, FrameType, Tag
from app.guest.records import RecordDecoder
from app.guest.streams import INPUT_BUFFER_BYTES, MIN_WINDOW_BYTES, encode_ack
from tests.unit.guest.channel_lab import (
    DEADLINE_S,
    OUTPUT,
    STDIN,
    ScriptedGuest,
    Wire,
    data,
    known_stream,
    launch,
    read_all,
    running,
    until,
)


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, count + 1))


# --- Output -------------------------------------------------------------------------------------


async def test_output_arrives_whole_though_the_wire_breaks(
    channel: GuestChannel, wire: Wire
) -> None:
    await launch(channel, "flood", "20000")
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read_all(channel.open_output(OUTPUT)))
        for count in range(2, 12):
            wire.cut()
            await until(lambda count=count: channel.connection_count >= count)  # type: ignore[misc]
            await asyncio.sleep(0)
    assert reader.result() == numbers(20000)


async def test_output_not_acknowledged_is_bounded_by_the_window(
    guest: FakeGuest, channel: GuestChannel
) -> None:
    agent = await launch(channel, "flood", "20000")
    stream = channel.open_output(OUTPUT, window_bytes=MIN_WINDOW_BYTES)
    await agent.next_event()
    received = 0
    while received < MIN_WINDOW_BYTES:
        received += len((await anext(stream)).data)
    await agent.set_clock(10**18)  # more would have come before its answer
    assert received == MIN_WINDOW_BYTES
    assert len(stream._buffer) == 0


async def test_unread_output_does_not_hold_up_others(channel: GuestChannel) -> None:
    agent = await launch(channel, "flood", "20000")
    unread = channel.open_output(OUTPUT)
    await agent.exec("c1", "x", ProcessSpec(("echo", "quick"), 11))
    assert await read_all(channel.open_output(11)) == b"quick\n"
    unread.close()


async def test_next_engine_goes_on_at_the_committed_offset(guest: FakeGuest) -> None:
    async with running(guest.connect) as first:
        await launch(first, "flood", "20000")
        decoder, received, committed_offset = RecordDecoder(), b"", 0
        stream = first.open_output(OUTPUT)
        async for chunk in stream:
            records = decoder.feed(chunk.data)
            if records:
                received += b"".join(record.data for record in records)
                committed_offset = records[-1].end_offset
                stream.acknowledge(committed_offset)
                break
    async with running(guest.connect) as second:
        hello = await second.connected(DEADLINE_S)
        assert hello.stream(OUTPUT) is not None
        rest = await read_all(second.open_output(OUTPUT, offset=committed_offset))
        assert received + rest == numbers(20000)


async def test_chunks_begin_later_where_earlier_bytes_were_acknowledged(
    guest: FakeGuest, channel: GuestChannel, wire: Wire
) -> None:
    agent = await launch(channel, "echo", "hi")
    await agent.next_event()
    stream = channel.open_output(OUTPUT)
    chunk = await anext(stream)
    stream.acknowledge(chunk.end_offset)
    stream.close()
    await agent.set_clock(10**18)  # sent after the acknowledgement
    wire.cut()
    await until(lambda: channel.connection_count == 2)
    again = channel.open_output(OUTPUT, offset=0)
    last = await anext(again)
    assert (last.start_offset, last.data, last.eof) == (chunk.end_offset, b"", True)


async def test_closed_output_can_be_read_again(channel: GuestChannel) -> None:
    agent = await launch(channel, "flood", "2000")
    await agent.next_event()
    first = channel.open_output(OUTPUT)
    await anext(first)
    first.close()
    assert [chunk async for chunk in first] == []
    assert await read_all(channel.open_output(OUTPUT)) == numbers(2000)
    assert channel.connection_count == 2


async def test_output_is_read_by_one_at_a_time(channel: GuestChannel) -> None:
    await launch(channel, "echo", "hi")
    stream = channel.open_output(OUTPUT)
    with pytest.raises(Conflict):
        channel.open_output(OUTPUT)
    await read_all(stream)
    with pytest.raises(Conflict):
        channel.open_output(OUTPUT)


async def test_acknowledged_end_is_forgotten_after_a_pong(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect, ChannelTimeouts(ping_interval_s=0.01)) as channel:
        await channel.connected(DEADLINE_S)
        stream = channel.open_output(OUTPUT)
        await scripted.frame(FrameType.ACK)
        scripted.say(data(0, b"", eof=True))
        chunk = await anext(stream)
        stream.acknowledge(chunk.end_offset, eof=True)
        assert (await scripted.frame(FrameType.ACK)).flags == FLAG_EOF
        ping = await scripted.frame(FrameType.PING)
        scripted.say(encode_frame(FrameType.PONG, offset=ping.offset))
        await until(lambda: not channel._outputs.awaits_pong())


async def test_acknowledged_end_is_repeated_if_the_guest_still_waits(
    scripted: ScriptedGuest,
) -> None:
    async with running(scripted.connect) as channel:
        await channel.connected(DEADLINE_S)
        stream = channel.open_output(OUTPUT)
        await scripted.frame(FrameType.ACK)
        scripted.say(data(0, b"", eof=True))
        stream.acknowledge((await anext(stream)).end_offset, eof=True)
        await scripted.frame(FrameType.ACK)
        scripted.hang_up()
        again = await scripted.frame(FrameType.ACK)
        assert (again.stream, again.flags, again.offset) == (OUTPUT, FLAG_EOF, 0)


async def test_acknowledge_refuses_what_was_not_given_out(channel: GuestChannel) -> None:
    agent = await launch(channel, "echo", "hi")
    await agent.next_event()
    stream = channel.open_output(OUTPUT)
    with pytest.raises(InvalidArgument, match="was read to 0"):
        stream.acknowledge(1)
    with pytest.raises(InvalidArgument, match="end"):
        stream.acknowledge(0, eof=True)


async def test_output_of_an_unknown_stream_fails_after_reconnect(
    channel: GuestChannel, wire: Wire
) -> None:
    stream = channel.open_output(77)
    wire.cut()
    with pytest.raises(NotFound, match="77"):
        await anext(stream)


@pytest.mark.parametrize("stream_id", [-1, 0, 1 << 32])
async def test_stream_id_out_of_range_is_refused(channel: GuestChannel, stream_id: int) -> None:
    with pytest.raises(InvalidArgument, match="stream id"):
        channel.open_output(stream_id)
    with pytest.raises(InvalidArgument, match="stream id"):
        channel.open_input(stream_id)


@pytest.mark.parametrize("window_bytes", [0, MIN_WINDOW_BYTES - 1, 1 << 32])
async def test_window_out_of_range_is_refused(channel: GuestChannel, window_bytes: int) -> None:
    with pytest.raises(InvalidArgument):
        channel.open_output(OUTPUT, window_bytes=window_bytes)


@pytest.mark.parametrize(
    "lie",
    [
        data(5, b"gap"),
        data(0, b"a") + data(0, b"a"),
        b"".join(data(n * 16000, bytes(16000)) for n in range(3)),
        data(0, b"end", eof=True) + data(3, b"more"),
        data(0, b"end", eof=True) + data(3, b"", eof=True) + data(3, b"x", eof=True),
        encode_frame(FrameType.PING),
        encode_frame(FrameType.HELLO_ACK),
        encode_ack(STDIN, 5, 100) + encode_frame(FrameType.ACK, b"", stream=STDIN),
        b"\0" * 24,
    ],
    ids=["gap", "repeat", "window", "after-end", "new-end", "ping", "hello", "ack", "zeros"],
)
async def test_lying_guest_costs_its_connection(lie: bytes) -> None:
    guest = ScriptedGuest(
        hello=[known_stream(OUTPUT), known_stream(STDIN, direction=Direction.INPUT)]
    )
    async with running(guest.connect) as channel:
        await channel.connected(DEADLINE_S)
        stdin = channel.open_input(STDIN)
        stream = channel.open_output(OUTPUT, window_bytes=MIN_WINDOW_BYTES)
        await guest.frame(FrameType.ACK)
        guest.say(lie)
        await until(lambda: guest.connection_count == 2)
        assert "Channel lost" in channel.last_fault
        assert len(stream._buffer) <= MIN_WINDOW_BYTES
        stdin.write_eof()
    await guest.close()


async def test_guest_that_lost_output_fails_the_stream() -> None:
    guest = ScriptedGuest(hello=[known_stream(OUTPUT, base=10, end=50)])
    async with running(guest.connect) as channel:
        await channel.connected(DEADLINE_S)
        with pytest.raises(CorruptData, match="lost output"):
            await anext(channel.open_output(OUTPUT, offset=100))
    await guest.close()


async def test_data_in_tiny_pieces_stays_small(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect) as channel:
        await channel.connected(DEADLINE_S)
        stream = channel.open_output(OUTPUT)
        await scripted.frame(FrameType.ACK)
        scripted.say(*(data(offset, b"x") for offset in range(5000)), data(5000, b"", eof=True))
        await until(lambda: len(stream._buffer) == 5000)
        chunks = [chunk async for chunk in stream]
        assert [(chunk.data, chunk.eof) for chunk in chunks] == [(b"x" * 5000, True)]


# --- Input --------------------------------------------------------------------------------------


async def test_stdin_arrives_whole_though_the_wire_breaks(
    channel: GuestChannel, wire: Wire
) -> None:
    await launch(channel, "cat", stdin=True)
    typed = numbers(100_000)
    stdin = channel.open_input(STDIN)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read_all(channel.open_output(OUTPUT)))
        writer = group.create_task(stdin.write(typed))
        for count in range(2, 12):
            wire.cut()
            await until(lambda count=count: channel.connection_count >= count)  # type: ignore[misc]
            await asyncio.sleep(0)
        await writer
        stdin.write_eof()
        await stdin.drain()
    assert reader.result() == typed


async def test_stdin_that_nobody_reads_holds_the_writer(channel: GuestChannel) -> None:
    await launch(channel, "sleep", "100", stdin=True)
    stdin = channel.open_input(STDIN)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stdin.write(bytes(10 * INPUT_BUFFER_BYTES))
    assert len(stdin._buffer) == INPUT_BUFFER_BYTES


async def test_stdin_of_an_ended_process_refuses(channel: GuestChannel) -> None:
    agent = await launch(channel, "true", stdin=True)
    stdin = channel.open_input(STDIN)
    await agent.next_event()
    await until(lambda: stdin.is_finished)
    with pytest.raises(Conflict, match="ended"):
        await stdin.write(b"too late")
    stdin.write_eof()
    await stdin.drain()


async def test_stdin_that_ended_while_away_refuses(
    guest: FakeGuest, channel: GuestChannel, wire: Wire
) -> None:
    agent = await launch(channel, "cat", stdin=True)
    stdin = channel.open_input(STDIN)
    guest.containers["c1"].init.die(9)
    wire.cut()
    assert isinstance(await agent.next_event(), ProcessExited)
    await until(lambda: stdin.is_finished)


async def test_stdin_after_eof_refuses(channel: GuestChannel) -> None:
    await launch(channel, "sleep", "100", stdin=True)
    stdin = channel.open_input(STDIN)
    stdin.write_eof()
    with pytest.raises(Conflict):
        await stdin.write(b"x")


async def test_stdin_goes_on_where_an_earlier_engine_stopped(guest: FakeGuest) -> None:
    async with running(guest.connect) as first:
        await launch(first, "cat", stdin=True)
        stdin = first.open_input(STDIN)
        await stdin.write(b"first ")
        await stdin.drain()
    async with running(guest.connect) as second:
        await second.connected(DEADLINE_S)
        stdin = second.open_input(STDIN)
        await stdin.write(b"second")
        stdin.write_eof()
        assert await read_all(second.open_output(OUTPUT)) == b"first second"
    async with running(guest.connect) as third:
        await third.connected(DEADLINE_S)
        with pytest.raises(Conflict):
            await third.open_input(STDIN).write(b"too late")


async def test_stdin_that_an_earlier_engine_ended_refuses(guest: FakeGuest) -> None:
    async with running(guest.connect) as first:
        await launch(first, "sleep", "100", stdin=True)
        first.open_input(STDIN).write_eof()
        await Agent(first).freeze("c1")
        await until(lambda: guest.machine.inputs[STDIN].is_drained)
    async with running(guest.connect) as second:
        await second.connected(DEADLINE_S)
        with pytest.raises(Conflict):
            await second.open_input(STDIN).write(b"more")


async def test_control_overtakes_stdin() -> None:
    scripted = ScriptedGuest(hello=[known_stream(STDIN, direction=Direction.INPUT)])
    async with running(scripted.connect) as channel, asyncio.TaskGroup() as group:
        await channel.connected(DEADLINE_S)
        stdin = channel.open_input(STDIN)
        writing = group.create_task(stdin.write(bytes(INPUT_BUFFER_BYTES)))
        await writing
        scripted.say(encode_ack(STDIN, 0, INPUT_BUFFER_BYTES))
        await scripted.frame(FrameType.DATA)
        task = group.create_task(Agent(channel).seed_entropy(b"x"))
        before = 0
        while (frame := await scripted.received.get()).type is not FrameType.REQUEST:
            before += len(frame.payload)
        assert before < INPUT_BUFFER_BYTES
        answer = encode_fields([(Tag.ERRNO, 0)])
        scripted.say(encode_frame(FrameType.RESPONSE, answer, offset=frame.offset))
        await task
    await scripted.close()
