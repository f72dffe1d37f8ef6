"""Streams of docs/channel.md: windows, acknowledgements, ends, back-pressure, stdin."""

import time

import pytest

from app.guest.fields import Fields
from app.guest.frames import encode_frame
from app.guest.protocol import FLAG_EOF, Direction, EventKind, FrameType, Tag
from app.guest.records import Source
from app.guest.streams import decode_window
from tests.contract.agent.host import (
    CONTAINER,
    OUTPUT,
    STDIN,
    WIDE_WINDOW_BYTES,
    Connect,
    RawHost,
    joined,
    reconnect,
)

pytestmark = pytest.mark.timeout(120)  # the first one builds the agent

NUMBERS = 300_000  # more than the 1 MiB that the guest holds without a spill


async def run_to_end(host: RawHost, *args: str) -> None:
    await host.run(*args)
    await host.event(EventKind.PROCESS_EXITED)


def data_frames(host: RawHost) -> list[bytes]:
    return [frame.payload for frame in host.seen if frame.type is FrameType.DATA]


# --- Output -------------------------------------------------------------------------------------


async def test_output_tells_source_and_time(host: RawHost) -> None:
    before_ns = time.time_ns()
    await host.run("sh", "-c", "echo out; echo err >&2; echo out again")
    records = await host.output(OUTPUT)
    by_source = {source: b"" for source in Source}
    for record in records:
        by_source[record.source] += record.data
    assert by_source == {Source.STDOUT: b"out\nout again\n", Source.STDERR: b"err\n"}
    times = [record.time_ns for record in records]
    assert before_ns - 10**9 < times[0] <= times[-1] < time.time_ns() + 10**9


async def test_terminal_has_one_source(host: RawHost) -> None:
    await host.run("sh", "-c", "echo out; echo err >&2", tty=True)
    records = await host.output(OUTPUT)
    assert {record.source for record in records} == {Source.STDOUT}
    assert joined(records).replace(b"\r", b"") == b"out\nerr\n"


async def test_nothing_is_sent_before_the_first_ack(host: RawHost, connect: Connect) -> None:
    await run_to_end(host, "echo", "hi")
    await host.settle()
    await host.settle()
    assert data_frames(host) == []
    again = await reconnect(host, connect)
    await again.settle()
    await again.settle()
    assert data_frames(again) == []


async def test_window_bounds_what_is_sent(host: RawHost) -> None:
    await run_to_end(host, "seq", "1000")
    await host.ack(OUTPUT, 0, 100)
    await host.settle()
    await host.settle()
    assert sum(map(len, data_frames(host))) == 100
    await host.ack(OUTPUT, 0, 150)
    await host.settle()
    await host.settle()
    assert sum(map(len, data_frames(host))) == 150


async def test_window_of_0_holds_back_only_its_stream(host: RawHost) -> None:
    await host.run("sh", "-c", "echo held; sleep 100")
    await host.ack(OUTPUT, 0, 0)
    await host.exec("x", "echo", "free", output=11)
    assert joined(await host.output(11)) == b"free\n"
    await host.settle()
    assert data_frames(host) == []


async def test_output_is_sent_again_from_the_acknowledged_offset(
    host: RawHost, connect: Connect
) -> None:
    await run_to_end(host, "seq", "5000")
    await host.ack(OUTPUT, 0, 4000)
    sent = b""
    while len(sent) < 4000:
        sent += (await host.data(OUTPUT)).payload
    again = await reconnect(host, connect)
    await again.ack(OUTPUT, 1000, 500)
    frame = await again.data(OUTPUT)
    assert (frame.offset, frame.payload) == (1000, sent[1000:1500])
    third = await reconnect(again, connect)
    info = third.hello.stream(OUTPUT)
    assert info is not None
    assert (info.base, info.direction, info.has_ended) == (1000, Direction.OUTPUT, True)


async def test_ack_before_the_oldest_kept_byte_begins_there(
    host: RawHost, connect: Connect
) -> None:
    await run_to_end(host, "seq", "1000")
    await host.ack(OUTPUT, 1000, 0)
    await host.settle()
    again = await reconnect(host, connect)
    await again.ack(OUTPUT, 0, WIDE_WINDOW_BYTES)
    assert (await again.data(OUTPUT)).offset == 1000


async def test_ack_beyond_the_end_frees_nothing(host: RawHost, connect: Connect) -> None:
    await run_to_end(host, "echo", "precious")
    await host.ack(OUTPUT, 1 << 40, WIDE_WINDOW_BYTES, eof=True)
    await host.settle()
    again = await reconnect(host, connect)
    assert joined(await again.output(OUTPUT)) == b"precious\n"


async def test_end_comes_with_eof_and_is_forgotten_once_acknowledged(
    host: RawHost, connect: Connect
) -> None:
    await host.run("echo", "hi")
    records = await host.output(OUTPUT)
    again = await reconnect(host, connect)
    info = again.hello.stream(OUTPUT)
    assert info is not None
    assert (info.end, info.has_ended) == (records[-1].end_offset, True)
    await again.ack(OUTPUT, info.end, WIDE_WINDOW_BYTES)
    frame = await again.data(OUTPUT)
    assert (frame.flags, frame.payload, frame.offset) == (FLAG_EOF, b"", info.end)
    await again.ack(OUTPUT, info.end, 0, eof=True)
    await again.settle()
    third = await reconnect(again, connect)
    assert third.hello.streams == ()


async def test_eof_ack_of_a_living_stream_does_not_end_it(host: RawHost, connect: Connect) -> None:
    await host.run("cat", stdin=True)
    await host.ack(OUTPUT, 0, WIDE_WINDOW_BYTES, eof=True)
    await host.write(STDIN, 0, b"still here", eof=True)
    assert joined(await host.output(OUTPUT)) == b"still here"


async def test_output_without_a_host_is_kept(host: RawHost, connect: Connect) -> None:
    await host.run("sh", "-c", "for i in $(seq 1 2000); do echo $i; done")
    again = await reconnect(host, connect)
    await again.event(EventKind.PROCESS_EXITED)
    lines = joined(await again.output(OUTPUT)).split()
    assert lines == [b"%d" % number for number in range(1, 2001)]


async def test_flood_blocks_and_loses_nothing(host: RawHost) -> None:
    await host.run("seq", str(NUMBERS))
    blocked = Fields((await host.event(EventKind.BACKPRESSURE)).payload)
    assert blocked.text(Tag.CONTAINER) == CONTAINER
    assert blocked.flag(Tag.BLOCKED)
    assert blocked.number(Tag.TIME_NS) > 0
    await host.settle()
    records = await host.output(OUTPUT, window=256 * 1024)
    assert joined(records).split() == [b"%d" % number for number in range(1, NUMBERS + 1)]
    assert not Fields((await host.event(EventKind.BACKPRESSURE)).payload).flag(Tag.BLOCKED)


async def test_blocked_container_leaves_others_alone(host: RawHost) -> None:
    await host.run("seq", str(NUMBERS))
    await host.event(EventKind.BACKPRESSURE)
    assert (await host.exec("x", "echo", "quick", output=11)).number(Tag.ERRNO) == 0
    assert joined(await host.output(11)) == b"quick\n"


async def test_only_the_newest_backpressure_event_is_kept(host: RawHost, connect: Connect) -> None:
    await host.run("seq", str(NUMBERS))
    await host.event(EventKind.BACKPRESSURE)
    await host.output(OUTPUT)
    await host.event(EventKind.PROCESS_EXITED)
    again = await reconnect(host, connect)
    await again.settle()
    kinds = [
        Fields(f.payload).number(Tag.EVENT_KIND) for f in again.seen if f.type is FrameType.EVENT
    ]
    assert kinds.count(EventKind.BACKPRESSURE) == 1


# --- Input --------------------------------------------------------------------------------------


async def test_stdin_is_granted_then_read(host: RawHost) -> None:
    await host.run("cat", stdin=True)
    grant = await host.take(lambda f: f.type is FrameType.ACK and f.stream == STDIN)
    assert grant.offset == 0
    assert decode_window(grant.payload) >= 4096
    await host.write(STDIN, 0, b"hello ")
    await host.write(STDIN, 6, b"world", eof=True)
    assert joined(await host.output(OUTPUT)) == b"hello world"
    await host.event(EventKind.PROCESS_EXITED)


async def test_stdin_is_granted_before_the_request_is_answered(host: RawHost) -> None:
    await host.run("sleep", "100")
    await host.exec("x", "cat", output=11, stdin=12)
    assert [f.stream for f in host.seen if f.type is FrameType.ACK] == [12]


async def test_stdin_known_bytes_are_skipped_and_gaps_dropped(host: RawHost) -> None:
    await host.run("cat", stdin=True)
    await host.write(STDIN, 0, b"abc")
    await host.write(STDIN, 10, b"beyond", eof=True)
    await host.write(STDIN, 0, b"abcdef")
    await host.write(STDIN, 2, b"cd")
    await host.write(STDIN, 6, b"", eof=True)
    assert joined(await host.output(OUTPUT)) == b"abcdef"


async def test_stdin_goes_on_after_reconnect(host: RawHost, connect: Connect) -> None:
    await host.run("cat", stdin=True)
    await host.write(STDIN, 0, b"first ")
    await host.settle()
    again = await reconnect(host, connect)
    grant = await again.take(lambda f: f.type is FrameType.ACK and f.stream == STDIN)
    assert grant.offset == 6
    info = again.hello.stream(STDIN)
    assert info is not None
    assert (info.direction, info.end) == (Direction.INPUT, 6)
    await again.write(STDIN, 6, b"second", eof=True)
    assert joined(await again.output(OUTPUT)) == b"first second"


async def test_stdin_window_follows_the_reader(host: RawHost) -> None:
    await host.run("cat", stdin=True)
    await host.ack(OUTPUT, 0, WIDE_WINDOW_BYTES)
    total, sent, limit = 400_000, 0, 0
    while sent < total:
        grant = await host.take(lambda f: f.type is FrameType.ACK and f.stream == STDIN)
        limit = max(limit, grant.offset + decode_window(grant.payload))
        while sent < min(limit, total):
            piece = b"x" * min(8000, limit - sent, total - sent)
            await host.write(STDIN, sent, piece, eof=sent + len(piece) == total)
            sent += len(piece)
        host.seen = [f for f in host.seen if f.type is not FrameType.DATA]
    await host.event(EventKind.PROCESS_EXITED)


async def test_stdin_of_an_ended_process_is_taken_back(host: RawHost, connect: Connect) -> None:
    await host.run("true", stdin=True)
    await host.take(
        lambda f: f.type is FrameType.ACK and f.stream == STDIN and bool(f.flags & FLAG_EOF)
    )
    await host.write(STDIN, 0, b"too late")
    await host.settle()
    again = await reconnect(host, connect)
    assert again.hello.stream(STDIN) is None


async def test_stdin_end_is_acknowledged_once_read(host: RawHost) -> None:
    await host.run("sh", "-c", "cat; sleep 100", stdin=True)
    await host.write(STDIN, 0, b"all", eof=True)
    ack = await host.take(
        lambda f: f.type is FrameType.ACK and f.stream == STDIN and bool(f.flags & FLAG_EOF)
    )
    assert ack.offset == 3


async def test_data_for_an_unknown_stream_is_ignored(host: RawHost) -> None:
    await host.write(999, 0, b"nobody")
    await host.send(encode_frame(FrameType.ACK, b"bad", stream=OUTPUT))
    await host.ack(998, 5, 5, eof=True)
    await host.settle()
    assert host.seen == []
