from collections.abc import Callable

import pytest

from app.domain.lines import LogCursor, NewLine, PendingLine
from app.domain.log import LINE_LIMIT_BYTES
from tests.unit.logs.lab import OUT, Lab, add, made, numbers, read_all, rows, until


async def test_full_chunks_are_sealed_at_once(lab: Lab) -> None:
    await add(lab.store, 100)
    await add(lab.store, 600)
    assert rows(lab, "SELECT first_seq, last_seq FROM chunks ORDER BY id") == [(1, 350), (351, 700)]
    assert rows(lab, "SELECT first_seq, last_seq FROM tail") == []


async def test_chunk_of_long_lines_is_bounded_in_bytes(lab: Lab) -> None:
    await lab.store.append(
        "one", [NewLine(1, OUT, b"x" * LINE_LIMIT_BYTES) for _ in range(40)], LogCursor("vm", 1)
    )
    assert rows(lab, "SELECT last_seq - first_seq + 1 FROM chunks") == [(16,), (16,), (8,)]
    assert len(await read_all(lab.store)) == 40


async def test_waiting_tail_is_sealed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.logs.dayfile.SEAL_AFTER_S", 0.0)
    monkeypatch.setattr("app.logs.writer.TICK_S", 0.01)
    await lab.reopen()
    await add(lab.store, 3)
    await until(lambda: not rows(lab, "SELECT * FROM tail"))
    assert rows(lab, "SELECT first_seq, last_seq FROM chunks") == [(1, 3)]
    assert numbers(await read_all(lab.store)) == [1, 2, 3]


async def test_tail_left_by_an_earlier_engine_is_sealed_and_its_file_retired(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(lab.store, 3)
    first = lab.path()
    lab.next_day()
    monkeypatch.setattr("app.logs.dayfile.SEAL_AFTER_S", 0.0)
    monkeypatch.setattr("app.logs.writer.TICK_S", 0.01)
    await lab.reopen()
    await until(lambda: first.read_bytes()[18:20] == b"\1\1")  # left write-ahead mode
    assert rows(lab, "SELECT first_seq, last_seq FROM chunks", first) == [(1, 3)]
    assert numbers(await read_all(lab.store)) == [1, 2, 3]


async def test_old_sources_are_forgotten(lab: Lab) -> None:
    for run in range(20):
        await lab.store.append("one", (), LogCursor(f"vm{run}", run + 1))
    found = [(await lab.store.cursor("one", f"vm{run}")).offset for run in range(20)]
    assert found == [0] * 12 + list(range(13, 21))


async def test_erase_takes_one_container_only(
    lab: Lab, small_chunks: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.logs.dayfile.ERASE_SLICE_CHUNKS", 2)
    small_chunks(3)
    for _ in range(2):
        await add(lab.store, 17, "one")
        await add(lab.store, 4, "two")
        lab.next_day()
    await lab.store.erase("one")
    for _ in range(2):
        store = await lab.reopen()
        assert await read_all(store, "one") == []
        assert await store.search(["line"], container_ids=["one"]) == []
        assert await store.cursor("one", "vm") == LogCursor("vm")
        assert len(await read_all(store, "two")) == 8
        assert len(await store.search(["line"])) == 8
    assert numbers(await add(lab.store, 1, "one")) == [1]


async def test_erase_of_an_unknown_container_does_nothing(lab: Lab) -> None:
    await add(lab.store, 1)
    await lab.store.erase("two")
    assert len(await read_all(lab.store)) == 1


async def test_prune_deletes_old_days_and_keeps_where_logs_stand(lab: Lab) -> None:
    cursor = LogCursor("vm", 3, {OUT: PendingLine(1, b"x")})
    await lab.store.append("one", made(3), cursor)
    await lab.store.append("gone", made(3), cursor)
    old = lab.path()
    lab.next_day()
    await add(lab.store, 1, "two")
    lab.next_day(30)
    assert await lab.store.prune(30, containers=["one", "two"]) == 1
    assert not old.exists()
    for _ in range(2):
        store = await lab.reopen()
        assert await read_all(store, "one") == []
        assert await store.cursor("one", "vm") == cursor
        assert store.last_seq("one") == 3
        assert len(await read_all(store, "two")) == 1
    assert lab.store.last_seq("gone") == 0
    assert numbers(await lab.store.append("one", made(1), LogCursor("vm", 9))) == [4]
    assert numbers(await read_all(lab.store, "one")) == [4]


async def test_prune_carries_the_newest_cursor_of_each_source(lab: Lab) -> None:
    await lab.store.append("one", (), LogCursor("vm-a", 1))
    await lab.store.append("one", (), LogCursor("vm-b", 1))
    lab.next_day()
    await lab.store.append("one", (), LogCursor("vm-b", 2))
    lab.next_day()
    await lab.store.prune(1, containers=["one"])
    await lab.store.prune(0, containers=["one"])
    await lab.reopen()
    found = [(await lab.store.cursor("one", name)).offset for name in ("vm-a", "vm-b")]
    assert found == [1, 2]


async def test_prune_leaves_nothing_beside(lab: Lab) -> None:
    await add(lab.store, 1)
    lab.next_day(2)
    await lab.store.prune(1, containers=[])
    await lab.store.close()
    assert [path.name for path in lab.root.iterdir()] == [lab.path().name]
