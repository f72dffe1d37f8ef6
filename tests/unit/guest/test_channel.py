"""The engine's end of the channel, against a fake guest and against one that misbehaves."""

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable

import pytest

from app.core.errors import (
    CorruptData,
    DeadlineExceeded,
    GuestFailed,
    InvalidArgument,
    Unavailable,
    Unsupported,
)
from app.guest.agent import Agent
from app.guest.channel import ChannelTimeouts, GuestChannel
from app.guest.fake import FakeGuest
from app.guest.fields import encode_fields
from app.guest.frames import encode_frame
from app.guest.memory_stream import memory_stream_pair
from app.guest.protocol import MAX_MESSAGE_BYTES, FrameType, Op, Tag
from app.guest.requests import MAX_IN_FLIGHT
from app.guest.streams import INPUT_BUFFER_BYTES
from tests.unit.guest.channel_lab import (
    DEADLINE_S,
    OUTPUT,
    QUICK,
    STDIN,
    ScriptedGuest,
    Wire,
    launch,
    read_all,
    running,
    spec,
    until,
)

# --- Connecting ---------------------------------------------------------------------------------


async def test_connected_gives_hello(channel: GuestChannel) -> None:
    hello = await channel.connected(1)
    assert (hello.version, hello.agent_version) == (1, "fake")
    assert channel.hello == hello
    assert channel.is_connected


async def test_connected_misses_its_deadline_with_the_fault() -> None:
    async def refuse() -> tuple[StreamReader, StreamWriter]:
        raise Unavailable("VM vm0 is gone")

    async with running(refuse) as channel:
        with pytest.raises(DeadlineExceeded, match="VM vm0 is gone"):
            await channel.connected(0.05)
        assert not channel.is_connected


async def test_connect_is_tried_until_it_works(guest: FakeGuest) -> None:
    refusals = iter([OSError("refused"), Unavailable("busy"), TimeoutError()])

    async def connect() -> tuple[StreamReader, StreamWriter]:
        for error in refusals:
            raise error
        return await guest.connect()

    async with running(connect) as channel:
        assert await channel.connected(DEADLINE_S)


async def test_silent_agent_is_tried_again() -> None:
    attempts: list[tuple[StreamReader, StreamWriter]] = []

    async def connect() -> tuple[StreamReader, StreamWriter]:
        ours, theirs = memory_stream_pair()
        attempts.append(ours)
        return theirs

    timeouts = ChannelTimeouts(first_retry_s=0, max_retry_s=0, hello_s=0.01, max_hello_s=0.04)
    began_s = time.monotonic()
    async with running(connect, timeouts) as channel:
        await until(lambda: len(attempts) >= 5)
        assert time.monotonic() - began_s >= 0.01 + 0.02 + 0.04 + 0.04  # ever more patient
        assert "HELLO" in channel.last_fault
    for _, writer in attempts:
        writer.close()


async def test_no_common_version_ends_the_channel() -> None:
    guest = FakeGuest(version=7)
    async with running(guest.connect) as channel:
        with pytest.raises(Unsupported, match="protocol version"):
            await channel.connected(DEADLINE_S)
        with pytest.raises(Unsupported):
            await Agent(channel).set_clock(0)
        with pytest.raises(Unsupported):
            channel.open_output(1)
    await guest.close()


async def test_cancelled_run_ends_every_wait(guest: FakeGuest) -> None:
    async with running(guest.connect) as channel, asyncio.TaskGroup() as group:
        await channel.connected(DEADLINE_S)
        await launch(channel, "cat", stdin=True)
        stdin = channel.open_input(STDIN)
        guest.is_hung = True
        waits: list[Awaitable[object]] = [
            channel.next_event(),
            anext(channel.open_output(OUTPUT)),
            stdin.write(bytes(2 * INPUT_BUFFER_BYTES)),
            Agent(channel).stats("c1"),
        ]
        tasks = [group.create_task(_catch(wait)) for wait in waits]
        await asyncio.sleep(0)
        channel_task = next(
            task for task in asyncio.all_tasks() if "GuestChannel.run" in repr(task.get_coro())
        )
        channel_task.cancel()
    assert [type(task.result()) for task in tasks] == [Unavailable] * len(tasks)
    with pytest.raises(Unavailable):
        await channel.connected(1)


async def _catch(wait: Awaitable[object]) -> BaseException | None:
    try:
        await wait
    except Unavailable as exc:
        return exc
    return None


async def test_cancellation_is_not_lost_to_a_fault(guest: FakeGuest, wire: Wire) -> None:
    channel = GuestChannel(wire.connect, name="vm0", timeouts=QUICK)
    task = asyncio.get_running_loop().create_task(channel.run())
    await channel.connected(DEADLINE_S)
    wire.cut()
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled()


# --- Requests -----------------------------------------------------------------------------------


async def test_request_fails_with_errno_and_message(channel: GuestChannel) -> None:
    with pytest.raises(GuestFailed, match="no container nowhere") as caught:
        await Agent(channel).start("nowhere")
    assert caught.value.errno == 2


async def test_request_before_the_connection_waits_for_it(guest: FakeGuest) -> None:
    may_connect = asyncio.Event()

    async def connect() -> tuple[StreamReader, StreamWriter]:
        await may_connect.wait()
        return await guest.connect()

    async with running(connect) as channel, asyncio.TaskGroup() as group:
        task = group.create_task(Agent(channel).seed_entropy(b"x"))
        await asyncio.sleep(0)
        may_connect.set()
        await task
    assert guest.runs == [Op.SEED_ENTROPY]


async def test_request_misses_its_deadline(guest: FakeGuest, channel: GuestChannel) -> None:
    guest.is_hung = True
    with pytest.raises(DeadlineExceeded, match="vm0 did not answer STATS"):
        await Agent(channel).stats("c1", timeout_s=0.01)


async def test_request_that_was_given_up_is_not_sent_again(
    guest: FakeGuest, channel: GuestChannel, wire: Wire
) -> None:
    guest.is_hung = True
    with pytest.raises(DeadlineExceeded):
        await Agent(channel).seed_entropy(b"x", timeout_s=0.01)
    wire.cut()
    guest.resume()
    await until(lambda: channel.connection_count == 2)
    await Agent(channel).set_clock(10**18)
    assert guest.runs.count(Op.SEED_ENTROPY) <= 1


async def test_cancelled_request_that_was_never_sent_never_runs(guest: FakeGuest) -> None:
    may_connect = asyncio.Event()

    async def connect() -> tuple[StreamReader, StreamWriter]:
        await may_connect.wait()
        return await guest.connect()

    async with running(connect) as channel:
        with pytest.raises(DeadlineExceeded):
            await Agent(channel).seed_entropy(b"x", timeout_s=0.01)
        may_connect.set()
        await Agent(channel).set_clock(10**18)
    assert guest.runs == [Op.SET_CLOCK]


async def test_request_runs_once_though_its_answer_is_lost(guest: FakeGuest, wire: Wire) -> None:
    guest_delays = FakeGuest(delays_s={Op.SEED_ENTROPY: 0.05})
    slow_wire = Wire(guest_delays)
    async with running(slow_wire.connect) as channel, asyncio.TaskGroup() as group:
        await channel.connected(DEADLINE_S)
        task = group.create_task(Agent(channel).seed_entropy(b"x"))
        for count in range(2, 6):
            await asyncio.sleep(0)
            slow_wire.cut()
            await until(lambda count=count: channel.connection_count == count)  # type: ignore[misc]
        await task
    assert guest_delays.runs == [Op.SEED_ENTROPY]
    await guest_delays.close()


async def test_too_long_request_is_refused_here(guest: FakeGuest, channel: GuestChannel) -> None:
    with pytest.raises(InvalidArgument, match="more than the 262144"):
        await Agent(channel).create(spec("x" * MAX_MESSAGE_BYTES))
    assert guest.runs == []


async def test_long_request_is_sent_in_fragments(channel: GuestChannel) -> None:
    await launch(channel, "echo", "x" * 200_000)
    assert len(await read_all(channel.open_output(OUTPUT))) == 200_001


async def test_many_requests_at_once_are_all_answered(channel: GuestChannel) -> None:
    agent = Agent(channel)
    async with asyncio.TaskGroup() as group:
        for number in range(20 * MAX_IN_FLIGHT):
            group.create_task(agent.set_clock(10**18 + number))


async def test_few_requests_are_under_way_at_once(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect) as channel, asyncio.TaskGroup() as group:
        await channel.connected(DEADLINE_S)
        agent = Agent(channel)
        tasks = [group.create_task(agent.seed_entropy(b"x")) for _ in range(MAX_IN_FLIGHT + 1)]
        frames = [await scripted.frame(FrameType.REQUEST) for _ in range(MAX_IN_FLIGHT)]
        assert scripted.received.empty()
        answer = encode_fields([(Tag.ERRNO, 0)])
        for frame in frames:
            scripted.say(encode_frame(FrameType.RESPONSE, answer, offset=frame.offset))
        last = await scripted.frame(FrameType.REQUEST)
        scripted.say(encode_frame(FrameType.RESPONSE, answer, offset=last.offset))
        await asyncio.gather(*tasks)
        ids = [frame.offset for frame in [*frames, last]]
        assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize(
    ("payload", "error"),
    [(b"", CorruptData), (b"\1\2\3", CorruptData), (encode_fields([(Tag.ERRNO, 13)]), GuestFailed)],
    ids=["empty", "cut-off", "no-message"],
)
async def test_strange_answer_fails_its_request_only(
    scripted: ScriptedGuest, payload: bytes, error: type[Exception]
) -> None:
    async with running(scripted.connect) as channel, asyncio.TaskGroup() as group:
        await channel.connected(DEADLINE_S)
        task = group.create_task(_outcome(Agent(channel).seed_entropy(b"x")))
        frame = await scripted.frame(FrameType.REQUEST)
        scripted.say(encode_frame(FrameType.RESPONSE, payload, offset=frame.offset + 1))
        scripted.say(encode_frame(FrameType.RESPONSE, payload, offset=frame.offset))
        assert isinstance(await task, error)
        assert scripted.connection_count == 1


async def _outcome(wait: Awaitable[object]) -> object:
    try:
        return await wait
    except (CorruptData, GuestFailed) as exc:
        return exc
