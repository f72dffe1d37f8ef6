"""Events and liveness over the channel."""

import asyncio

import pytest

from app.core.errors import Unavailable
from app.guest.agent import Agent
from app.guest.agent_types import BackpressureEvent, OomEvent, ProcessExited, ProcessSpec
from app.guest.channel import ChannelTimeouts, GuestChannel
from app.guest.events import MAX_QUEUED_EVENTS
from app.guest.fake import FakeGuest
from app.guest.fields import FieldList, encode_fields
from app.guest.frames import encode_frame
from app.guest.protocol import EventKind, FrameType, Tag
from tests.unit.guest.channel_lab import (
    DEADLINE_S,
    ScriptedGuest,
    Wire,
    launch,
    running,
    until,
)

# --- Events -------------------------------------------------------------------------------------


async def test_events_come_once_in_order_though_the_wire_breaks(
    channel: GuestChannel, wire: Wire
) -> None:
    agent = await launch(channel, "sleep", "100")
    for number in range(5):
        await agent.exec("c1", f"x{number}", ProcessSpec(("true",), 11 + number))
        wire.cut()
    await until(lambda: channel.connection_count >= 2)
    events = [await agent.next_event() for _ in range(5)]
    assert [getattr(event, "process_id", "") for event in events] == [f"x{n}" for n in range(5)]
    channel.acknowledge_event(events[-1].number)
    await agent.set_clock(10**18)
    wire.cut()
    await agent.set_clock(10**18)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await agent.next_event()


async def test_event_not_acknowledged_comes_to_the_next_engine(guest: FakeGuest) -> None:
    async with running(guest.connect) as first:
        agent = await launch(first, "oom")
        kinds = [type(await agent.next_event()) for _ in range(2)]
        assert kinds == [OomEvent, ProcessExited]
    async with running(guest.connect) as second:
        events = [await Agent(second).next_event() for _ in range(2)]
        assert isinstance(events[1], ProcessExited)
        assert (events[1].exit_code, events[1].oom_killed) == (137, True)


async def test_backpressure_is_told(channel: GuestChannel) -> None:
    agent = await launch(channel, "flood", "400000")
    blocked = await agent.next_event()
    assert isinstance(blocked, BackpressureEvent)
    assert blocked.is_blocked


async def test_unreadable_and_unknown_events_are_passed_over(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect) as channel:
        await channel.connected(DEADLINE_S)
        oom: FieldList = [(Tag.EVENT_KIND, EventKind.OOM), (Tag.CONTAINER, "c1"), (Tag.COUNT, 1)]
        scripted.say(
            encode_frame(FrameType.EVENT, b"\1", offset=1),
            encode_frame(FrameType.EVENT, encode_fields([(Tag.EVENT_KIND, 99)]), offset=2),
            encode_frame(FrameType.EVENT, encode_fields([(Tag.EVENT_KIND, 1)]), offset=3),
            encode_frame(FrameType.EVENT, encode_fields(oom), offset=4),
        )
        event = await Agent(channel).next_event()
        assert event == OomEvent(4, "c1", 1)


async def test_events_that_nobody_takes_are_bounded(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect) as channel:
        await channel.connected(DEADLINE_S)
        payload = encode_fields([(Tag.EVENT_KIND, 2)])
        scripted.say(
            *(
                encode_frame(FrameType.EVENT, payload, offset=number)
                for number in range(1, MAX_QUEUED_EVENTS + 2)
            )
        )
        await until(lambda: scripted.connection_count >= 2)
        assert "wait unread" in channel.last_fault


# --- Liveness -----------------------------------------------------------------------------------


async def test_quiet_guest_is_pinged_and_stays_heard(guest: FakeGuest) -> None:
    timeouts = ChannelTimeouts(ping_interval_s=0.01)
    async with running(guest.connect, timeouts) as channel:
        await channel.connected(DEADLINE_S)
        heard_s = channel.last_heard_monotonic_s
        await until(lambda: channel.last_heard_monotonic_s > heard_s)


async def test_hung_guest_grows_silent_and_is_heard_again(guest: FakeGuest) -> None:
    timeouts = ChannelTimeouts(ping_interval_s=0.01)
    async with running(guest.connect, timeouts) as channel:
        await channel.connected(DEADLINE_S)
        guest.is_hung = True
        await until(lambda: channel.silent_s > 0.2)
        assert channel.is_connected
        guest.resume()
        await until(lambda: channel.silent_s < 0.2)


async def test_guest_that_owes_an_answer_gets_a_new_connection(scripted: ScriptedGuest) -> None:
    timeouts = ChannelTimeouts(first_retry_s=0, ping_interval_s=0.01, silence_s=0.03)
    async with running(scripted.connect, timeouts) as channel:
        await until(lambda: scripted.connection_count >= 2)
        assert "said nothing" in channel.last_fault


async def test_guest_that_answers_keeps_its_connection(guest: FakeGuest) -> None:
    timeouts = ChannelTimeouts(ping_interval_s=0.01, silence_s=0.2)
    async with running(guest.connect, timeouts) as channel:
        info = await channel.connected(DEADLINE_S)
        began_s = channel.last_heard_monotonic_s
        await until(lambda: channel.last_heard_monotonic_s > began_s + 0.4)
        assert (channel.connection_count, channel.hello) == (1, info)


async def test_hung_guest_is_not_flooded_with_pings(scripted: ScriptedGuest) -> None:
    async with running(scripted.connect, ChannelTimeouts(ping_interval_s=0.001)) as channel:
        await channel.connected(DEADLINE_S)
        await until(lambda: channel.silent_s > 0.2)
        assert scripted.received.qsize() <= 8


async def test_panicking_guest_breaks_the_connection(
    guest: FakeGuest, channel: GuestChannel
) -> None:
    guest.panic()
    await until(lambda: not channel.is_connected)
    await until(lambda: "off" in channel.last_fault)


async def test_closed_channel_refuses_everything(guest: FakeGuest) -> None:
    async with running(guest.connect) as channel:
        await channel.connected(DEADLINE_S)
    with pytest.raises(Unavailable):
        channel.open_output(1)
    with pytest.raises(Unavailable):
        channel.open_input(1)
    with pytest.raises(Unavailable):
        await Agent(channel).power_off()
    with pytest.raises(Unavailable):
        await channel.next_event()
    channel.acknowledge_event(5)
