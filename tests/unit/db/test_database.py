import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Pool, insert, select, text, update
from sqlalchemy.event import listen, remove

from app.core.errors import CorruptData, SlipwayError, Unavailable
from app.db.database import Database, ReadSession
from app.db.models import SessionRow, SetupLinkRow

FIRST_LINK = {"token_sha256": "aa", "expires_at_ns": 1}


async def links(session: ReadSession) -> list[str]:
    return list(await session.scalars(select(SetupLinkRow.token_sha256)))


async def test_write_commits_once_at_the_end(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
        async with database.read() as reader:
            assert await links(reader) == []
    async with database.read() as reader:
        assert await links(reader) == ["aa"]


async def test_write_rolls_back_when_the_block_raises(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as session:
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as reader:
        assert await links(reader) == []


async def test_write_cancelled_in_a_statement_frees_the_lock(
    database: Database, request: pytest.FixtureRequest
) -> None:
    long = (
        "WITH RECURSIVE n(i) AS (SELECT told(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200000) "
        "SELECT i FROM n WHERE i % 40000 = 0"
    )
    loop, inside = asyncio.get_running_loop(), asyncio.Event()

    def tell(value: int) -> int:
        loop.call_soon_threadsafe(inside.set)
        return value

    def teach(connection: sqlite3.Connection, _record: object) -> None:
        connection.create_function("told", 1, tell)

    listen(Pool, "connect", teach)
    request.addfinalizer(lambda: remove(Pool, "connect", teach))

    async def read_long() -> None:
        async with database.write() as session:
            await session.execute(text(long))

    task = asyncio.create_task(read_long())
    await asyncio.wait_for(inside.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), database.write() as session:
        await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
    async with database.read() as reader:
        assert await links(reader) == ["aa"]


async def test_write_rolls_back_and_frees_the_lock_when_cancelled(database: Database) -> None:
    inside = asyncio.Event()

    async def stay() -> None:
        async with database.write() as session:
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stay())
    await asyncio.wait_for(inside.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), database.write() as session:
        assert await links(session) == []


async def test_write_takes_turns_with_read_modify_write(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(SetupLinkRow).values(FIRST_LINK))

    async def increment() -> None:
        async with database.write() as session:
            value = await session.scalar(select(SetupLinkRow.expires_at_ns))
            await session.execute(update(SetupLinkRow).values(expires_at_ns=(value or 0) + 1))

    await asyncio.gather(*(increment() for _ in range(20)))
    async with database.read() as reader:
        assert await reader.scalar(select(SetupLinkRow.expires_at_ns)) == 21


async def test_write_waits_for_another_process(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO setup_links VALUES ('bb', 2)")

    async def write() -> list[str]:
        async with database.write() as session:
            return await links(session)

    task = asyncio.create_task(write())
    done, _ = await asyncio.wait({task}, timeout=0.1)
    assert not done
    other.execute("COMMIT")
    other.close()
    assert await asyncio.wait_for(task, 5) == ["bb"]


async def test_read_refuses_to_write(database: Database) -> None:
    with pytest.raises(RuntimeError, match="read session"):
        async with database.read() as session:
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))


async def test_read_keeps_its_snapshot(database: Database) -> None:
    async with database.read() as reader:
        assert await links(reader) == []
        async with database.write() as session:
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
        assert await links(reader) == []


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("foreign_keys", 1), ("journal_mode", "wal"), ("synchronous", 1), ("busy_timeout", 5000)],
)
async def test_connection_has_pragma(database: Database, pragma: str, value: object) -> None:
    async with database.read() as session:
        assert await session.scalar(text(f"PRAGMA {pragma}")) == value


async def test_foreign_key_is_held(database: Database) -> None:
    orphan = {"token_sha256": "cc", "user_id": 99, "created_at_ns": 1, "last_seen_at_ns": 1}
    with pytest.raises(SlipwayError, match="FOREIGN KEY"):
        async with database.write() as session:
            await session.execute(insert(SessionRow).values(orphan))


async def test_ddl_rolls_back(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE passing (id INTEGER)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as session:
        found = await session.scalar(
            text("SELECT count(*) FROM sqlite_master WHERE name='passing'")
        )
    assert found == 0


async def test_open_names_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "slipway.db"
    path.write_bytes(b"this is not a database, it only has its name" * 100)
    with pytest.raises(CorruptData, match=r"slipway\.db"):
        await Database(path).open()


async def test_open_names_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="absent"):
        await Database(tmp_path / "absent" / "slipway.db").open()


async def test_closed_database_says_so(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable, match="not open"):
        async with database.read():
            pass
    with pytest.raises(Unavailable, match="not open"):
        async with database.write():
            pass
    await database.close()


async def test_writer_that_is_cancelled_as_its_turn_comes_is_cancelled(database: Database) -> None:
    """Else a task of the engine goes on after its end, and the engine never ends."""

    async def write() -> None:
        async with database.write():
            await asyncio.Event().wait()

    for steps in range(4):
        writing = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing}, timeout=2)
        assert writing.cancelled()


async def test_a_session_that_outlives_the_database_ends(database: Database) -> None:
    async def late() -> None:
        async with database.write() as session:
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))
            await database.close()
            await session.execute(insert(SetupLinkRow).values(FIRST_LINK))

    with pytest.raises(Unavailable, match="closed"):
        await late()
    await database.open()
    async with database.write() as session:
        assert await links(session) == []
