"""What the pump keeps when a guest goes away in the midst of a commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from app.core.errors import ResourceExhausted, SlipwayError
from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogLine
from app.guest.records import Source, encode_record
from app.guest.streams import Chunk
from app.logs.follow import LogHub
from app.logs.store import LogStore
from app.services.attachments import AttachHub, OutputTap
from app.services.pump import LogPump


class GatedStore(LogStore):
    """Holds each append back, before or after it is written, until the test opens the gate."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached = asyncio.Event()
        self.writes_first = True
        self.is_gated = True

    async def append(
        self, container_id: str, lines: Sequence[NewLine], cursor: LogCursor
    ) -> tuple[LogLine, ...]:
        if not self.is_gated:
            return await super().append(container_id, lines, cursor)
        if self.writes_first:
            await super().append(container_id, lines, cursor)
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError("never opened")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[GatedStore]:
    store = GatedStore(tmp_path / "logs")
    await store.open()
    yield store
    await store.close()


class Stream:
    """One chunk of output, then nothing."""

    def __init__(self, text: bytes, start_offset: int = 0) -> None:
        self._data = encode_record(1, Source.STDOUT, text)
        self.start_offset = start_offset
        self.acknowledged = 0

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        yield Chunk(self.start_offset, self._data, eof=False)
        await asyncio.Event().wait()

    def acknowledge(self, offset: int, *, eof: bool) -> None:
        self.acknowledged = offset


def make_pump(store: LogStore, faults: list[SlipwayError | None]) -> LogPump:
    async def remember(fault: SlipwayError | None) -> None:
        faults.append(fault)

    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tap = OutputTap(AttachHub(), "one", last_seq=0, writer_ended=ended)
    return LogPump(
        store, LogHub(store), container_id="one", source="vm/1", on_fault=remember, tap=tap
    )


@pytest.mark.parametrize("was_written", [True, False], ids=["written", "not written"])
async def test_commit_cancelled_under_way_is_neither_lost_nor_repeated(
    store: GatedStore, was_written: bool
) -> None:
    store.writes_first = was_written
    faults: list[SlipwayError | None] = []
    pump = make_pump(store, faults)
    await pump.restore()
    stream = Stream(b"first\nsecond\nunfinished")
    task = asyncio.create_task(pump.run(stream))  # type: ignore[arg-type]
    await asyncio.wait_for(store.reached.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.is_gated = False
    await asyncio.wait_for(pump.give_up(), 5)
    lines = await store.read("one", from_seq=1, limit=10)
    assert [line.data for line in lines] == [b"first", b"second", b"unfinished"]
    assert stream.acknowledged == 0
    assert faults == []


async def test_store_that_refuses_is_asked_again_and_reported(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.pump.RETRY_DELAY_S", 0)
    store.is_gated = False
    faults: list[SlipwayError | None] = []
    append = store.append
    refusals = iter([ResourceExhausted("disk full"), ResourceExhausted("disk full")])

    async def refuse_twice(
        container_id: str, lines: Sequence[NewLine], cursor: LogCursor
    ) -> tuple[LogLine, ...]:
        for refusal in refusals:
            raise refusal
        return await append(container_id, lines, cursor)

    monkeypatch.setattr(store, "append", refuse_twice)
    pump = make_pump(store, faults)
    await pump.restore()
    stream = Stream(b"first\n")
    task = asyncio.create_task(pump.run(stream))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not stream.acknowledged:  # noqa: ASYNC110 - a stream has no event for it
            await asyncio.sleep(0)
    task.cancel()
    assert [line.data for line in await store.read("one", from_seq=1, limit=9)] == [b"first"]
    assert [fault.message if fault else None for fault in faults] == ["disk full", None]


async def test_stream_that_begins_later_than_known_is_acknowledged_where_it_is(
    store: GatedStore,
) -> None:
    store.is_gated = False
    pump = make_pump(store, [])
    assert await pump.restore() == 0  # the file that knew more was damaged
    stream = Stream(b"first\n", start_offset=1000)
    task = asyncio.create_task(pump.run(stream))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not stream.acknowledged:  # noqa: ASYNC110 - a stream has no event for it
            await asyncio.sleep(0)
    task.cancel()
    assert stream.acknowledged == 1000 + len(encode_record(1, Source.STDOUT, b"first\n"))
    assert (await store.cursor("one", "vm/1")).offset == stream.acknowledged
