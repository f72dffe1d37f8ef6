import asyncio
import sqlite3
from pathlib import Path

import pytest

from app.core.errors import ResourceExhausted, Unavailable, Unsupported
from app.domain.lines import LogCursor, NewLine
from app.logs.store import LogStore
from tests.unit.logs.lab import FIRST_DAY, OUT, Lab, add, made, numbers, read_all


async def test_full_disk_is_named_and_nothing_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(lab.store, 10)
    monkeypatch.setattr(
        "app.logs.schema.WRITER_PRAGMAS", ("journal_mode = WAL", "max_page_count = 40")
    )
    await lab.reopen()
    big = [NewLine(1, OUT, bytes([65 + number % 50]) * 4000) for number in range(60)]
    with pytest.raises(ResourceExhausted, match=r"full") as caught:
        await lab.store.append("one", big, LogCursor("vm", 99))
    assert "Free space" in caught.value.advice
    assert lab.store.last_seq("one") == 10
    assert (await lab.store.cursor("one", "vm")).offset == 10
    monkeypatch.undo()
    await lab.reopen()
    assert numbers(await lab.store.append("one", big, LogCursor("vm", 99)))[0] == 11
    assert numbers(await read_all(lab.store)) == list(range(1, 71))


async def test_append_works_again_once_there_is_space(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.logs.schema.WRITER_PRAGMAS", ("journal_mode = WAL", "max_page_count = 40")
    )
    big = [NewLine(1, OUT, bytes([65 + number % 50]) * 4000) for number in range(60)]
    with pytest.raises(ResourceExhausted):
        await lab.store.append("one", big, LogCursor("vm", 1))
    assert numbers(await add(lab.store, 3)) == [1, 2, 3]
    assert numbers(await read_all(lab.store)) == [1, 2, 3]


async def test_locked_file_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.logs.schema.BUSY_TIMEOUT_S", 0.05)
    await add(lab.store, 1)
    await lab.reopen()
    other = sqlite3.connect(lab.path(), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await add(lab.store, 1)
    other.execute("ROLLBACK")
    other.close()
    assert numbers(await add(lab.store, 1)) == [2]


async def test_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="log directory"):
        await LogStore(tmp_path / "file" / "logs").open()


async def test_file_of_a_newer_release_is_refused(lab: Lab) -> None:
    await add(lab.store, 1)
    await lab.store.close()
    with sqlite3.connect(lab.path()) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Unsupported, match="version 99"):
        await LogStore(lab.root).open()


async def test_closed_store_says_so(lab: Lab) -> None:
    await add(lab.store, 1)
    await lab.store.close()
    await lab.store.close()
    with pytest.raises(Unavailable, match="closed"):
        await lab.store.append("one", made(1), LogCursor("vm", 9))
    with pytest.raises(Unavailable, match="closed"):
        await lab.store.read("one", from_seq=1, limit=1)


async def test_close_commits_what_was_given_before(lab: Lab) -> None:
    append = asyncio.ensure_future(lab.store.append("one", made(1), LogCursor("vm", 9)))
    await asyncio.sleep(0)  # one step: it is in the queue
    await lab.store.close()
    assert numbers(await append) == [1]
    await lab.open()
    assert lab.store.last_seq("one") == 1


async def test_empty_file_of_an_engine_that_ended_while_making_it(lab: Lab) -> None:
    await lab.store.close()
    lab.path().touch()
    lab.path(FIRST_DAY.replace(day=1)).touch()
    await lab.open()
    assert numbers(await add(lab.store, 2)) == [1, 2]
    assert lab.faults == []


async def test_files_are_private(lab: Lab) -> None:
    await add(lab.store, 1)
    assert lab.root.stat().st_mode & 0o777 == 0o700
    assert lab.path().stat().st_mode & 0o777 == 0o600
