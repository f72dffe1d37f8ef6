import asyncio

import pytest

from app.core.errors import Conflict
from app.domain.lines import LogCursor, NewLine, PendingLine
from app.domain.log import LogLine
from tests.unit.logs.lab import ERR, OUT, Lab, add, made, numbers, read_all


async def test_append_numbers_lines_from_one(lab: Lab) -> None:
    written = [NewLine(5, ERR, b"a\xff", partial=True), NewLine(4, OUT, b"")]
    expected = (LogLine(1, 5, ERR, b"a\xff", True), LogLine(2, 4, OUT, b""))
    assert await lab.store.append("one", written, LogCursor("vm", 9)) == expected
    assert await lab.store.read("one", from_seq=1, limit=9) == list(expected)
    assert lab.store.last_seq("one") == 2


async def test_append_counts_each_container_apart(lab: Lab) -> None:
    await add(lab.store, 2, "one")
    assert numbers(await add(lab.store, 2, "two")) == [1, 2]
    assert numbers(await add(lab.store, 1, "one")) == [3]


async def test_append_without_lines_stores_the_cursor(lab: Lab) -> None:
    cursor = LogCursor("vm", 7, {ERR: PendingLine(3, b"half"), OUT: PendingLine(4, b"\0\xff")})
    assert await lab.store.append("one", (), cursor) == ()
    assert await (await lab.reopen()).cursor("one", "vm") == cursor
    assert lab.store.last_seq("one") == 0


async def test_cursor_of_an_unknown_source_is_at_its_beginning(lab: Lab) -> None:
    await add(lab.store, 1)
    assert await lab.store.cursor("one", "other") == LogCursor("other")
    assert await lab.store.cursor("nobody", "vm") == LogCursor("vm")


async def test_cursor_waits_for_appends_before_it(lab: Lab) -> None:
    append = asyncio.ensure_future(lab.store.append("one", made(1), LogCursor("vm", 5)))
    await asyncio.sleep(0)  # one step: it is in the queue
    append.cancel()
    assert (await lab.store.cursor("one", "vm")).offset in {0, 5}
    offset = (await lab.store.cursor("one", "vm")).offset
    assert lab.store.last_seq("one") == (1 if offset else 0)


async def test_append_refuses_what_it_holds_already(lab: Lab) -> None:
    await lab.store.append("one", made(1), LogCursor("vm", 10))
    with pytest.raises(Conflict, match="up to byte 10"):
        await lab.store.append("one", made(1), LogCursor("vm", 9))
    store = await lab.reopen()
    with pytest.raises(Conflict, match="up to byte 10"):
        await store.append("one", made(1), LogCursor("vm", 9))
    assert store.last_seq("one") == 1


async def test_append_takes_the_end_of_a_stream_at_the_same_offset(lab: Lab) -> None:
    await lab.store.append("one", (), LogCursor("vm", 10, {OUT: PendingLine(1, b"x")}))
    assert numbers(await lab.store.append("one", made(1), LogCursor("vm", 10))) == [1]
    assert (await lab.store.cursor("one", "vm")).pending == {}


async def test_refused_append_does_not_hold_up_its_neighbours(lab: Lab) -> None:
    await lab.store.append("one", (), LogCursor("vm", 10))
    results = await asyncio.gather(
        lab.store.append("two", made(1), LogCursor("vm", 1)),
        lab.store.append("one", made(1), LogCursor("vm", 1)),
        lab.store.append("three", made(1), LogCursor("vm", 1)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [tuple, Conflict, tuple]


async def test_many_appends_at_once_are_in_order(lab: Lab) -> None:
    cursors = [LogCursor("vm", offset) for offset in range(200)]
    results = await asyncio.gather(
        *(lab.store.append("one", made(3, begin=3 * c.offset + 1), c) for c in cursors)
    )
    assert numbers([line for result in results for line in result]) == list(range(1, 601))
    assert [line.data for line in await read_all(lab.store)] == [
        b"line %d" % number for number in range(1, 601)
    ]


async def test_time_that_no_file_can_hold_is_bounded(lab: Lab) -> None:
    lines = [NewLine(time_ns, OUT, b"x") for time_ns in (2**64 - 1, -1, 2**63 - 1)]
    stored = await lab.store.append("one", lines * 100, LogCursor("vm", 1))
    assert [line.time_ns for line in stored[:3]] == [2**63 - 1, 0, 2**63 - 1]
