"""The database and its two kinds of transaction.

Only this module commits. A transaction is short and never waits for a VM, a guest or the network.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import NewType

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import ORMExecuteState, Session

from app.core.errors import Unavailable
from app.db.faults import database_fault
from app.db.sqlite import BEGIN_OPTION, BEGIN_WRITE, install_sqlite_rules

WRITER_WAIT_S = 10.0

ReadSession = NewType("ReadSession", AsyncSession)
WriteSession = NewType("WriteSession", ReadSession)
"""May do all that a ReadSession may, and write."""


class _ReadOnlySession(Session):
    """Refuses statements that would be rolled back in silence at the end of a read."""


@event.listens_for(_ReadOnlySession, "do_orm_execute")
def _refuse_writes(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError("A read session can't write; use Database.write()")


class Database:
    """One SQLite file.

    `open()` before anything else; the file must have been brought to the newest revision by
    `app.db.migrate.upgrade_database`. `close()` may be called in any state and more than once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: AsyncEngine | None = None
        self._readers: async_sessionmaker[AsyncSession] | None = None
        self._writers: async_sessionmaker[AsyncSession] | None = None
        self._writer_lock = asyncio.Lock()

    async def open(self) -> None:
        """Check that the file can be used; connections are made when needed.

        Raises:
            Unavailable: It can't be opened; nothing is left open.
            CorruptData: It is not a database.
        """
        try:
            await asyncio.to_thread(_probe, self.path)
        except sqlite3.Error as error:
            raise database_fault(error, str(self.path)) from error
        engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self.path)),
            connect_args={"isolation_level": None, "factory": _RollingBack},
        )
        install_sqlite_rules(engine.sync_engine)
        self._engine = engine
        self._readers = async_sessionmaker(
            engine, expire_on_commit=False, sync_session_class=_ReadOnlySession
        )
        self._writers = async_sessionmaker(
            engine.execution_options(**{BEGIN_OPTION: BEGIN_WRITE}), expire_on_commit=False
        )

    async def close(self) -> None:
        """Close every connection; transactions still open are rolled back."""
        engine, self._engine = self._engine, None
        self._readers = self._writers = None
        if engine is not None:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A consistent snapshot; what is written through it is refused.

        Raises:
            Unavailable: The database is closed or busy.
        """
        if self._readers is None:
            raise Unavailable(f"Database {self.path} is not open")
        try:
            async with self._readers() as session:
                yield ReadSession(session)
        except SQLAlchemyError as error:
            raise database_fault(error, str(self.path)) from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """A transaction that holds the write lock from its beginning.

        Committed once when the block ends, rolled back when it raises or is cancelled. Writers of
        this process wait for each other in order; another process is waited for as well.

        Raises:
            Unavailable: The database is closed, or the lock was not free in time.
            ResourceExhausted: The disk is full; nothing was written.
        """
        try:
            await asyncio.wait_for(self._writer_lock.acquire(), WRITER_WAIT_S)
        except TimeoutError as error:
            raise Unavailable(
                f"Database {self.path} is busy: no turn to write within {WRITER_WAIT_S:.0f} s",
                advice="Try again.",
            ) from error
        try:
            if self._writers is None:
                raise Unavailable(f"Database {self.path} is not open")
            async with self._writers() as session, session.begin():
                yield WriteSession(ReadSession(session))
        except SQLAlchemyError as error:
            raise database_fault(error, str(self.path)) from error
        finally:
            self._writer_lock.release()


class _RollingBack(sqlite3.Connection):
    """Ends its transaction when it is closed.

    A connection whose statement was cancelled is closed while a cursor of it is still held, by the
    traceback for one. SQLite then keeps it, and its write lock, until the cursor is gone
    (sqlite3_close_v2).
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):
            if self.in_transaction:
                self.execute("ROLLBACK")
        super().close()


def _probe(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
