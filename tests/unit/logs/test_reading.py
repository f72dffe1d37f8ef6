from collections.abc import Callable

import pytest

from app.core.errors import Conflict
from app.domain.lines import LogCursor, PendingLine
from app.logs import store as store_module
from tests.unit.logs.lab import OUT, Lab, add, made, numbers, read_all


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
async def test_lines_survive_sealing_and_reopening(lab: Lab, count: int) -> None:
    for _ in range(3):
        await add(lab.store, count)
        await lab.reopen()
    lines = await read_all(lab.store)
    assert numbers(lines) == list(range(1, 3 * count + 1))
    assert [line.data for line in lines] == [b"line %d" % line.seq for line in lines]


async def test_numbers_and_cursors_go_on_after_midnight(lab: Lab) -> None:
    await lab.store.append("one", made(2), LogCursor("vm", 5, {OUT: PendingLine(1, b"x")}))
    first = lab.path()
    lab.next_day()
    assert await lab.store.cursor("one", "vm") == LogCursor("vm", 5, {OUT: PendingLine(1, b"x")})
    with pytest.raises(Conflict):
        await lab.store.append("one", (), LogCursor("vm", 4))
    await lab.store.append("one", made(2, begin=3), LogCursor("vm", 9))
    await lab.reopen()
    assert first.exists()
    assert lab.path().exists()
    assert await lab.store.cursor("one", "vm") == LogCursor("vm", 9)
    assert numbers(await read_all(lab.store)) == [1, 2, 3, 4]


async def test_clock_that_goes_back_repeats_no_number(lab: Lab) -> None:
    for days in (0, 1, -1, 1, -2, 3):
        lab.next_day(days)
        await add(lab.store, 3)
        await lab.reopen()
    lines = await read_all(lab.store)
    assert [line.data for line in lines] == [b"line %d" % number for number in range(1, 19)]
    assert numbers(await lab.store.read("one", from_seq=5, limit=4)) == [5, 6, 7, 8]
    assert (await lab.store.cursor("one", "vm")).offset == 18


async def test_read_begins_anywhere(lab: Lab, small_chunks: Callable[[int], None]) -> None:
    small_chunks(4)
    await add(lab.store, 10)
    for from_seq in (-1, 0, 1, 4, 5, 9, 10, 11):
        found = numbers(await lab.store.read("one", from_seq=from_seq, limit=3))
        assert found == list(range(max(from_seq, 1), 11))[:3]


async def test_read_of_an_unknown_container_is_empty(lab: Lab) -> None:
    await add(lab.store, 1)
    assert await lab.store.read("two", from_seq=1, limit=10) == []
    assert await lab.store.tail("two", limit=10) == []
    assert lab.store.last_seq("two") == 0


@pytest.mark.parametrize("limit", [0, -1])
async def test_read_of_no_lines(lab: Lab, limit: int) -> None:
    await add(lab.store, 1)
    assert await lab.store.read("one", from_seq=1, limit=limit) == []
    assert await lab.store.tail("one", limit=limit) == []


async def test_read_is_bounded_in_bytes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "READ_BUDGET_BYTES", 100)
    for _ in range(3):
        await add(lab.store, 30)
        lab.next_day()
    page = await lab.store.read("one", from_seq=1, limit=90)
    assert numbers(page) == list(range(1, len(page) + 1))
    assert 1 < len(page) < 30
    assert numbers(await read_all(lab.store)) == list(range(1, 91))
    tail = await lab.store.tail("one", limit=90)
    assert numbers(tail) == list(range(91 - len(tail), 91))
    assert 1 < len(tail) < 30


@pytest.mark.parametrize("limit", [1, 5, 12, 20, 100])
async def test_tail_is_the_newest_in_order(lab: Lab, limit: int) -> None:
    for _ in range(4):
        await add(lab.store, 5)
        lab.next_day()
    expected = list(range(1, 21))[-limit:]
    assert numbers(await lab.store.tail("one", limit=limit)) == expected
