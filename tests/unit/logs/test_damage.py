import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from app.domain.lines import LogCursor
from tests.unit.logs.lab import Lab, add, made, numbers, read_all, until


def scribble(path: Path) -> None:
    """Damage every page but the first, as a dying disk would; keeps the file's identity."""
    with path.open("r+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size_bytes - 4096))


async def test_damaged_file_is_set_aside_at_the_start(lab: Lab) -> None:
    await add(lab.store, 300)
    damaged = lab.path()
    lab.next_day()
    await add(lab.store, 2)
    await lab.store.close()
    damaged.write_bytes(b"not a database" * 1000)
    await lab.open()
    await until(lambda: bool(lab.faults))
    assert str(damaged) in lab.faults[0]
    assert "set aside" in lab.faults[0]
    assert damaged.with_name(f"{damaged.name}.corrupt").exists()
    assert not damaged.exists()
    assert numbers(await read_all(lab.store)) == [301, 302]
    assert numbers(await add(lab.store, 1)) == [303]


async def test_file_damaged_under_the_writer_does_not_stop_it(lab: Lab) -> None:
    await add(lab.store, 2000)
    await add(lab.store, 5, "two")
    await lab.reopen()
    scribble(lab.path())
    assert numbers(await add(lab.store, 1)) == [2001]
    await until(lambda: bool(lab.faults))
    assert lab.path().with_name(f"{lab.path().name}.corrupt").exists()
    for _ in range(2):
        assert numbers(await read_all(lab.store)) == [2001]
        assert lab.store.last_seq("two") == 5
        await lab.reopen()
    assert numbers(await add(lab.store, 1, "two")) == [6]


async def test_file_damaged_under_a_reader_is_set_aside(lab: Lab) -> None:
    await add(lab.store, 2000)
    damaged = lab.path()
    lab.next_day()
    await add(lab.store, 2)
    await lab.reopen()
    scribble(damaged)
    assert numbers(await lab.store.read("one", from_seq=1, limit=10)) == [2001, 2002]
    await until(lambda: bool(lab.faults))
    assert not damaged.exists()
    assert await lab.store.search(["line"]) != []


async def test_second_damaged_file_of_a_day_gets_its_own_name(lab: Lab) -> None:
    for _ in range(2):
        lab.faults.clear()
        await add(lab.store, 2)
        await lab.store.close()
        lab.path().write_bytes(b"not a database" * 1000)
        await lab.open()
        await until(lambda: bool(lab.faults))
    names = sorted(path.name for path in lab.root.glob("*.corrupt*"))
    assert names == [f"{lab.path().name}.corrupt", f"{lab.path().name}.corrupt2"]


async def test_pump_goes_on_from_its_own_cursor_after_the_damage(lab: Lab) -> None:
    await lab.store.append("one", made(2000), LogCursor("vm", 500))
    await lab.reopen()
    scribble(lab.path())
    await lab.store.append("one", made(1), LogCursor("vm", 501))
    assert (await lab.store.cursor("one", "vm")).offset == 501


async def test_chunk_that_can_not_be_read_is_left_out(lab: Lab) -> None:
    await add(lab.store, 600)
    connection = sqlite3.connect(lab.path())
    connection.execute("UPDATE chunks SET block = x'00' WHERE first_seq = 301")
    connection.commit()
    connection.close()
    assert numbers(await read_all(lab.store)) == list(range(1, 301))
    assert len(await lab.store.search(["line"], limit=1000)) == 300
    await asyncio.wait_for(lab.store.erase("one"), 5)
    assert await read_all(lab.store) == []


async def test_prune_takes_old_damaged_files_too(lab: Lab) -> None:
    await add(lab.store, 1)
    await lab.store.close()
    lab.path().write_bytes(b"not a database" * 1000)
    await lab.open()
    lab.next_day(40)
    await lab.store.prune(30, containers=["one"])
    assert list(lab.root.glob("*.corrupt*")) == []


@pytest.mark.parametrize("name", ["notes.txt", "x.db", "2026-13-99.db", "2026-11-24.db.bak"])
async def test_file_that_is_none_of_ours_is_left_alone(lab: Lab, name: str) -> None:
    await lab.store.close()
    (lab.root / name).write_bytes(b"mine")
    await lab.open()
    lab.next_day(1000)
    await lab.store.prune(1, containers=[])
    assert (lab.root / name).read_bytes() == b"mine"
    assert lab.faults == []
