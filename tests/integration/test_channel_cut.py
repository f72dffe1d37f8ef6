"""The connection breaks at every byte of a session, both ways: nothing is lost or comes twice.

One session creates and starts a container, runs a second process that copies its stdin, sends a
signal, reads both outputs and both exits, and deletes. After each break the engine's channel must
bring it to its end by itself.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.guest.agent import Agent
from app.guest.agent_types import ContainerSpec, ProcessExited, ProcessSpec
from app.guest.channel import ChannelTimeouts, GuestChannel
from app.guest.fake import FakeGuest
from app.guest.protocol import RESYNC_ZERO_BYTES, Op
from app.guest.records import RecordDecoder
from tests.contract.agent.host import (
    ENV,
    AgentUnderTest,
    RawHost,
    build_native_agent,
    fake_agent_of,
    native_agent,
)
from tests.integration.cutting_wire import CuttingWire, Way

SIGTERM = 15
TYPED = b"typed, " * 8
SESSION_DEADLINE_S = 15.0
# In parts, so that several processes can share the work.
PARTS = 4
# The zeros of a first HELLO are alike, whatever came before: some of them stand for all.
SAMPLED_ZERO_BYTES = 2048

# Not `read`: a signal just before it would wait for the line.
TRAP_SCRIPT = 'trap "echo terminated; exit 3" TERM; echo ready; sleep 60 & wait'


def cuts(way: Way, part: int) -> Iterator[int]:
    """Every number of bytes after which to cut, without end."""
    first = 0
    if way is Way.TO_GUEST:
        first = RESYNC_ZERO_BYTES
        if part == 0:
            yield from range(0, first, SAMPLED_ZERO_BYTES)
    yield from itertools.count(first + part, PARTS)


@dataclass
class Outcome:
    """What one session brought."""

    output: dict[str, bytes] = field(default_factory=dict)
    exits: list[ProcessExited] = field(default_factory=list)


class Session:
    """One run through everything, on streams and a container of its own."""

    def __init__(self, wire: CuttingWire, number: int, args: tuple[str, ...]) -> None:
        timeouts = ChannelTimeouts(first_retry_s=0, max_retry_s=0.001)
        self.channel = GuestChannel(wire.connect, name="cut", timeouts=timeouts)
        self.agent = Agent(self.channel)
        self.container_id = f"container{number}"
        self.stream_ids = {"init": number * 10 + 1, "copy": number * 10 + 2}
        self.stdin_ids = {"init": number * 10 + 3, "copy": number * 10 + 4}
        self.args = args
        self.outcome = Outcome()
        self.ready = asyncio.Event()
        self.copied = asyncio.Event()

    def spec(self, process_id: str, args: tuple[str, ...]) -> ProcessSpec:
        return ProcessSpec(
            args,
            self.stream_ids[process_id],
            env=ENV,
            stdin_stream=self.stdin_ids[process_id],
        )

    async def run(self) -> Outcome:
        async with asyncio.timeout(SESSION_DEADLINE_S), asyncio.TaskGroup() as group:
            connection = group.create_task(self.channel.run())
            try:
                await self.drive()
            finally:
                connection.cancel()
        return self.outcome

    async def drive(self) -> None:
        agent = self.agent
        init = self.spec("init", self.args)
        await agent.create(ContainerSpec(self.container_id, "host", ("l",), "s", init))
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self.read("init"))
            readers.create_task(self.collect_exits())
            await agent.start(self.container_id)
            await agent.exec(self.container_id, "copy", self.spec("copy", ("cat",)))
            readers.create_task(self.read("copy"))
            stdin = self.channel.open_input(self.stdin_ids["copy"])
            await stdin.write(TYPED)
            stdin.write_eof()
            await self.ready.wait()
            await self.copied.wait()  # the end of init would kill it
            await agent.signal(self.container_id, SIGTERM)
        await agent.delete(self.container_id)
        # Its answer follows everything that was acknowledged before.
        await agent.seed_entropy(b"x" * 16)

    async def read(self, process_id: str) -> None:
        stream_id = self.stream_ids[process_id]
        stream = self.channel.open_output(stream_id)
        decoder, received = RecordDecoder(), bytearray()
        async for chunk in stream:
            assert chunk.start_offset == decoder.next_offset
            for record in decoder.feed(chunk.data):
                received += record.data
                stream.acknowledge(record.end_offset)
            if b"ready" in received:
                self.ready.set()
            if chunk.eof:
                stream.acknowledge(chunk.end_offset, eof=True)
        self.outcome.output[process_id] = bytes(received)

    async def collect_exits(self) -> None:
        while len(self.outcome.exits) < 2:
            event = await self.agent.next_event()
            assert isinstance(event, ProcessExited)
            self.outcome.exits.append(event)
            if event.process_id == "copy":
                self.copied.set()
            self.channel.acknowledge_event(event.number)


async def check_session(
    agent: AgentUnderTest, wire: CuttingWire, number: int, args: tuple[str, ...]
) -> None:
    """Run one session and check all that it must have brought."""
    session = Session(wire, number, args)
    try:
        outcome = await session.run()
    except* TimeoutError:
        pytest.fail(f"cut after {wire.cut_after_bytes} bytes: got {session.outcome}")
    finally:
        await wire.close()
    where = f"cut after {wire.cut_after_bytes} bytes"
    assert outcome.output == {"init": b"ready\nterminated\n", "copy": TYPED}, where
    exits = {(event.process_id, event.exit_code) for event in outcome.exits}
    assert exits == {("init", 3), ("copy", 0)}, where
    assert len({event.number for event in outcome.exits}) == 2, where
    assert wire.connection_count >= (2 if wire.has_cut else 1), where
    host = RawHost(*await agent.connect())
    hello = await host.say_hello()
    await host.settle()
    await host.close()
    assert (hello.streams, hello.processes, host.seen) == ((), (), []), where


RAN_ONCE = Counter([Op.CREATE, Op.START, Op.EXEC, Op.SIGNAL, Op.DELETE, Op.SEED_ENTROPY])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    ("way", "has_stale_tail"),
    [(Way.TO_GUEST, False), (Way.TO_HOST, False), (Way.TO_HOST, True)],
    ids=["to-guest", "to-host", "to-host-with-stale-tail"],
)
async def test_fake_agent_cut_at_every_byte(way: Way, has_stale_tail: bool, part: int) -> None:
    for number, cut_after_bytes in enumerate(cuts(way, part)):
        guest = FakeGuest()
        async with fake_agent_of(guest) as agent:
            wire = CuttingWire(agent.connect, way, cut_after_bytes, has_stale_tail=has_stale_tail)
            await check_session(agent, wire, number, ("trap", "3"))
            assert Counter(guest.runs) == RAN_ONCE, f"cut after {cut_after_bytes} bytes"
        if not wire.has_cut:
            assert number > 100
            return


@pytest.fixture(scope="module")
def native_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_native_agent(tmp_path_factory)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", Way)
async def test_real_agent_cut_at_every_byte(native_binary: Path, tmp_path: Path, way: Way) -> None:
    """What ran twice would fail with EEXIST or ESRCH."""
    async with asyncio.TaskGroup() as group:
        for part in range(PARTS):
            directory = tmp_path / str(part)
            directory.mkdir()
            group.create_task(cut_everywhere(native_binary, directory, way, part))


async def cut_everywhere(binary: Path, directory: Path, way: Way, part: int) -> None:
    """Let one agent live through all the cuts of a part."""
    async with native_agent(binary, directory) as agent:
        for number, cut_after_bytes in enumerate(cuts(way, part)):
            wire = CuttingWire(agent.connect, way, cut_after_bytes)
            await check_session(agent, wire, number + 1, ("sh", "-c", TRAP_SCRIPT))
            if not wire.has_cut:
                assert number > 100
                return
