"""Followers of a log: history and live lines without a gap, slow viewers, ends of runs."""

import asyncio

import pytest

from app.core.errors import Unavailable
from app.logs import follow as follow_module
from app.logs.follow import (
    BATCH_LINES,
    QUEUE_LINES,
    LogBatch,
    LogEnd,
    LogFollower,
    LogGap,
    LogHub,
    LogItem,
)
from tests.unit.logs.follow_lab import History, poll

DEADLINE_S = 5


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def hub(history: History) -> LogHub:
    return LogHub(history)


async def take(follower: LogFollower) -> LogItem:
    async with asyncio.timeout(DEADLINE_S):
        return await follower.next()


def seqs(item: LogItem) -> list[int]:
    assert isinstance(item, LogBatch)
    return [found.seq for found in item.lines]


async def is_waiting(follower: LogFollower) -> bool:
    return await poll(follower) is None


async def test_history_joins_live_lines(history: History, hub: LogHub) -> None:
    history.store(3)
    async with hub.follow("one", after_seq=1) as follower:
        assert seqs(await take(follower)) == [2, 3]
        assert await is_waiting(follower)
        hub.publish("one", history.store(2))
        assert seqs(await take(follower)) == [4, 5]


async def test_waiting_follower_is_woken(history: History, hub: LogHub) -> None:
    async with hub.follow("one", after_seq=0) as follower:
        task = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        hub.publish("one", history.store(1))
        assert seqs(await asyncio.wait_for(task, DEADLINE_S)) == [1]


async def test_lines_published_while_history_is_read_come_once(
    history: History, hub: LogHub
) -> None:
    history.store(2)
    history.gate = asyncio.Event()
    async with hub.follow("one", after_seq=0) as follower:
        task = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        hub.publish("one", history.store(2))
        history.gate.set()
        assert seqs(await asyncio.wait_for(task, DEADLINE_S)) == [1, 2, 3, 4]
        assert await is_waiting(follower)


async def test_line_read_from_the_store_before_it_is_published_comes_once(
    history: History, hub: LogHub
) -> None:
    history.store(1)
    async with hub.follow("one", after_seq=0) as follower:
        late = history.store(1)
        assert seqs(await take(follower)) == [1, 2]
        hub.publish("one", late)
        assert await is_waiting(follower)
        hub.publish("one", history.store(1))
        assert seqs(await take(follower)) == [3]


async def test_line_that_was_never_published_is_read_from_the_store(
    history: History, hub: LogHub
) -> None:
    async with hub.follow("one", after_seq=0) as follower:
        hub.publish("one", history.store(1))
        assert seqs(await take(follower)) == [1]
        history.store(1)  # committed, its publisher was cancelled
        hub.publish("one", history.store(1))
        assert seqs(await take(follower)) == [2, 3]
        assert await is_waiting(follower)


async def test_batches_are_bounded_in_lines(history: History, hub: LogHub) -> None:
    history.store(BATCH_LINES + 1)
    async with hub.follow("one", after_seq=0) as follower:
        assert len(seqs(await take(follower))) == BATCH_LINES
        assert len(seqs(await take(follower))) == 1
        assert await is_waiting(follower)
        hub.publish("one", history.store(BATCH_LINES + 1))
        assert len(seqs(await take(follower))) == BATCH_LINES
        assert len(seqs(await take(follower))) == 1


async def test_batches_are_bounded_in_bytes(
    history: History, hub: LogHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "BATCH_BYTES", 100)
    history.store(5, size_bytes=60)
    async with hub.follow("one", after_seq=0) as follower:
        assert [len(seqs(await take(follower))) for _ in range(3)] == [2, 2, 1]
        assert await is_waiting(follower)
        hub.publish("one", history.store(3, size_bytes=60))
        assert [len(seqs(await take(follower))) for _ in range(2)] == [2, 1]


async def test_slow_viewer_gets_a_gap_and_the_newest_lines(history: History, hub: LogHub) -> None:
    async with hub.follow("one", after_seq=0) as follower:
        assert await is_waiting(follower)
        for _ in range(400):
            hub.publish("one", history.store(100))
        assert await take(follower) == LogGap(1, 40_000 - QUEUE_LINES)
        got = [seq for _ in range(QUEUE_LINES // BATCH_LINES) for seq in seqs(await take(follower))]
        assert got == list(range(40_000 - QUEUE_LINES + 1, 40_001))
        assert await is_waiting(follower)


async def test_queue_is_bounded_in_bytes(
    history: History, hub: LogHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "QUEUE_BYTES", 1000)
    async with hub.follow("one", after_seq=0) as follower:
        assert await is_waiting(follower)
        hub.publish("one", history.store(20, size_bytes=100))
        assert await take(follower) == LogGap(1, 10)
        assert seqs(await take(follower)) == list(range(11, 21))
        hub.publish("one", history.store(10, size_bytes=100))
        assert seqs(await take(follower)) == list(range(21, 31))


async def test_viewer_that_reads_history_misses_nothing_however_slow(
    history: History, hub: LogHub
) -> None:
    history.store(10)
    got: list[int] = []
    async with hub.follow("one", after_seq=0) as follower:
        for _ in range(8):
            hub.publish("one", history.store(QUEUE_LINES // 2))
        while len(got) < history.newest:
            got.extend(seqs(await take(follower)))
    assert got == list(range(1, history.newest + 1))


async def test_one_slow_viewer_does_not_touch_another(history: History, hub: LogHub) -> None:
    async with (
        hub.follow("one", after_seq=0) as slow,
        hub.follow("one", after_seq=0) as fast,
        hub.follow("two", after_seq=0) as other,
    ):
        assert await is_waiting(slow)
        assert await is_waiting(fast)
        got: list[int] = []
        for _ in range(400):
            hub.publish("one", history.store(100))
            got.extend(seqs(await take(fast)))
        assert got == list(range(1, 40_001))
        assert isinstance(await take(slow), LogGap)
        assert other._queue_bytes == 0


async def test_lines_that_are_gone_are_a_gap(history: History, hub: LogHub) -> None:
    history.store(10)
    del history.lines[:4], history.lines[2:4]
    async with hub.follow("one", after_seq=0) as follower:
        assert await take(follower) == LogGap(1, 4)
        assert seqs(await take(follower)) == [5, 6]
        assert await take(follower) == LogGap(7, 8)
        assert seqs(await take(follower)) == [9, 10]
        assert await is_waiting(follower)


async def test_log_that_was_erased_is_a_gap(history: History, hub: LogHub) -> None:
    history.store(10)
    history.lines.clear()
    async with hub.follow("one", after_seq=3) as follower:
        assert await take(follower) == LogGap(4, 10)
        assert await is_waiting(follower)


@pytest.mark.parametrize(("after_seq", "first"), [(-5, 1), (0, 1), (3, 4), (99, 4)])
async def test_follower_begins_anywhere(
    history: History, hub: LogHub, after_seq: int, first: int
) -> None:
    history.store(3)
    async with hub.follow("one", after_seq=after_seq) as follower:
        hub.publish("one", history.store(1))
        assert seqs(await take(follower))[0] == first


async def test_end_comes_after_the_last_line(history: History, hub: LogHub) -> None:
    hub.begin("one")
    async with hub.follow("one", after_seq=0) as follower:
        hub.publish("one", history.store(2))
        hub.end("one")
        assert seqs(await take(follower)) == [1, 2]
        assert await take(follower) == LogEnd()
        assert await is_waiting(follower)


async def test_follower_goes_on_with_the_next_run(history: History, hub: LogHub) -> None:
    hub.begin("one")
    async with hub.follow("one", after_seq=0) as follower:
        hub.publish("one", history.store(2))
        hub.end("one")
        hub.begin("one")
        hub.publish("one", history.store(2))
        assert seqs(await take(follower)) == [1, 2]
        assert await take(follower) == LogEnd()
        assert seqs(await take(follower)) == [3, 4]


async def test_waiting_follower_hears_the_end(history: History, hub: LogHub) -> None:
    hub.begin("one")
    async with hub.follow("one", after_seq=0, until_end=True) as follower:
        task = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        hub.end("one")
        assert await asyncio.wait_for(task, DEADLINE_S) == LogEnd()


async def test_end_waits_for_lines_that_were_never_published(history: History, hub: LogHub) -> None:
    hub.begin("one")
    async with hub.follow("one", after_seq=0) as follower:
        assert await is_waiting(follower)
        history.store(2)
        hub.end("one")
        assert seqs(await take(follower)) == [1, 2]
        assert await take(follower) == LogEnd()


async def test_until_end_is_over_for_good(history: History, hub: LogHub) -> None:
    hub.begin("one")
    async with hub.follow("one", after_seq=0, until_end=True) as follower:
        hub.publish("one", history.store(1))
        hub.end("one")
        assert seqs(await take(follower)) == [1]
        assert await take(follower) == LogEnd()
        hub.publish("one", history.store(1))
        assert await take(follower) == LogEnd()


async def test_until_end_without_a_run_ends_after_the_history(
    history: History, hub: LogHub
) -> None:
    history.store(2)
    async with hub.follow("one", after_seq=0, until_end=True) as follower:
        assert seqs(await take(follower)) == [1, 2]
        assert await take(follower) == LogEnd()


async def test_follower_without_a_run_waits_for_one(history: History, hub: LogHub) -> None:
    async with hub.follow("one", after_seq=0) as follower:
        assert await is_waiting(follower)
        hub.begin("one")
        hub.publish("one", history.store(1))
        assert seqs(await take(follower)) == [1]


async def test_cancelled_wait_loses_nothing(history: History, hub: LogHub) -> None:
    history.store(2)
    history.gate = asyncio.Event()
    async with hub.follow("one", after_seq=0) as follower:
        for _ in range(3):
            assert await is_waiting(follower)
        history.gate.set()
        assert seqs(await take(follower)) == [1, 2]
        for _ in range(3):
            assert await is_waiting(follower)
        hub.publish("one", history.store(1))
        assert seqs(await take(follower)) == [3]


async def test_store_that_fails_can_be_asked_again(history: History, hub: LogHub) -> None:
    history.store(2)
    history.fault = Unavailable("locked")
    async with hub.follow("one", after_seq=0) as follower:
        with pytest.raises(Unavailable):
            await take(follower)
        history.fault = None
        assert seqs(await take(follower)) == [1, 2]


async def test_hub_forgets_followers_that_left(history: History, hub: LogHub) -> None:
    async with hub.follow("one", after_seq=0):
        async with hub.follow("one", after_seq=0):
            pass
        assert list(hub._followers) == ["one"]
    assert hub._followers == {}
    hub.publish("one", history.store(1))
    hub.end("one")
