"""Connecting as in docs/channel.md: HELLO, torn and broken frames, PING; real agent and fake."""

import time

import pytest

from app.guest.frames import encode_frame
from app.guest.protocol import FLAG_MORE, PROTOCOL_VERSION, FrameType, Op, Tag
from tests.contract.agent.host import STDIN, Connect, RawHost, reconnect

pytestmark = pytest.mark.timeout(120)  # the first one builds the agent


async def test_hello_tells_version_kernel_and_stages(host: RawHost) -> None:
    assert host.hello.version == PROTOCOL_VERSION
    assert host.hello.agent_version
    assert host.hello.kernel
    assert abs(host.hello.time_ns - time.time_ns()) < 10**10
    assert host.hello.uptime_ns > 0
    assert (host.hello.streams, host.hello.processes) == ((), ())


async def test_hello_without_a_common_version_ends_it(connect: Connect) -> None:
    host = await connect()
    hello = await host.say_hello(versions=(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 9))
    assert hello.version == 0
    await host.send(encode_frame(FrameType.PING, offset=1))
    await host.say_hello()
    assert host.seen == []


async def test_hello_accepts_a_newer_engine(connect: Connect) -> None:
    host = await connect()
    assert (await host.say_hello(versions=(1, PROTOCOL_VERSION + 1))).version == PROTOCOL_VERSION


async def test_nothing_is_answered_before_hello(connect: Connect, host: RawHost) -> None:
    await host.close()
    second = await connect()
    await second.send(encode_frame(FrameType.PING, offset=1))
    await second.say_hello()
    await second.settle()
    assert second.seen == []


@pytest.mark.parametrize("kept_bytes", [1, 23, 24, 40])
async def test_hello_after_a_torn_frame(host: RawHost, connect: Connect, kept_bytes: int) -> None:
    torn = encode_frame(FrameType.DATA, bytes(9000), stream=STDIN)
    await host.send(torn[:kept_bytes])
    again = await reconnect(host, connect)
    await again.settle()


async def test_hello_after_garbage_on_the_same_connection(host: RawHost) -> None:
    await host.send(b"\xff" * 100 + encode_frame(FrameType.PING, offset=99))
    await host.say_hello()
    await host.settle()
    assert host.seen == []


async def test_broken_crc_silences_the_agent_until_hello(host: RawHost) -> None:
    broken = bytearray(encode_frame(FrameType.PING, offset=5))
    broken[12] ^= 1
    await host.send(bytes(broken), encode_frame(FrameType.PING, offset=6))
    await host.say_hello(before=b"")
    await host.settle()
    assert host.seen == []


async def test_ping_gives_its_token_back(host: RawHost) -> None:
    await host.send(encode_frame(FrameType.PING, offset=(1 << 64) - 1))
    await host.take(lambda f: f.type is FrameType.PONG and f.offset == (1 << 64) - 1)


async def test_half_a_request_is_dropped_by_hello(host: RawHost) -> None:
    number = host.next_id()
    await host.send(encode_frame(FrameType.REQUEST, b"half", flags=FLAG_MORE, offset=number))
    await host.say_hello()
    answer = await host.request(Op.SEED_ENTROPY, [(Tag.DATA, bytes(32))], request_id=number)
    assert answer.number(Tag.ERRNO) == 0
