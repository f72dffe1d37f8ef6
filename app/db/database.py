"""The database and its two kinds of transaction.

Only this module commits. A transaction is short and never waits for a VM, a guest or the network.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from app.core.errors import Unavailable
from app.db.faults import database_fault
from app.db.session import ReadSession, WriteSession
from app.db.sqlite import BEGIN_OPTION, BEGIN_WRITE, install_sqlite_rules
from app.db.thread import DatabaseThread

WRITER_WAIT_S = 10.0
READERS = 2

__all__ = ["Database", "ReadSession", "WriteSession"]


class _ReadOnlySession(Session):
    """Refuses statements that would be rolled back in silence at the end of a read."""


@event.listens_for(_ReadOnlySession, "do_orm_execute")
def _refuse_writes(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError("A read session can't write; use Database.write()")


@dataclass(frozen=True)
class _Opened:
    """What there is while the database is open.

    A session's statements and its end go to one thread, so they follow each other, also when who
    asked for them is gone. Writers take turns and so share a thread.
    """

    engine: Engine
    readers: sessionmaker[_ReadOnlySession]
    writers: sessionmaker[Session]
    write_thread: DatabaseThread
    read_threads: Iterator[DatabaseThread]
    threads: tuple[DatabaseThread, ...]

    def close(self) -> None:
        for thread in self.threads:
            thread.stop()
        self.engine.dispose()


class Database:
    """One SQLite file.

    `open()` before anything else; the file must have been brought to the newest revision by
    `app.db.migrate.upgrade_database`. `close()` may be called in any state and more than once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: _Opened | None = None
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
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"isolation_level": None, "check_same_thread": False},
            max_overflow=-1,  # else a thread could wait for a connection that only it gives back
        )
        install_sqlite_rules(engine)
        write_thread = DatabaseThread("database-writer")
        read_threads = [DatabaseThread(f"database-reader-{number}") for number in range(READERS)]
        self._opened = _Opened(
            engine,
            sessionmaker(engine, expire_on_commit=False, class_=_ReadOnlySession),
            sessionmaker(
                engine.execution_options(**{BEGIN_OPTION: BEGIN_WRITE}), expire_on_commit=False
            ),
            write_thread,
            itertools.cycle(read_threads),
            (write_thread, *read_threads),
        )

    async def close(self) -> None:
        """Close every connection; transactions still open are rolled back."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await asyncio.to_thread(opened.close)

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise Unavailable(f"Database {self.path} is not open")
        return self._opened

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A consistent snapshot; what is written through it is refused.

        Raises:
            Unavailable: The database is closed or busy.
        """
        opened = self._require_open()
        session, thread = opened.readers(), next(opened.read_threads)
        try:
            yield ReadSession(session, thread)
        except SQLAlchemyError as error:
            raise database_fault(error, str(self.path)) from error
        finally:
            thread.post(session.close)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """A transaction that holds the write lock from its first statement on.

        Committed once when the block ends, rolled back when it raises or is cancelled. Writers of
        this process wait for each other in order; another process is waited for as well.

        Raises:
            Unavailable: The database is closed, or the lock was not free in time.
            ResourceExhausted: The disk is full; nothing was written.
        """
        try:
            async with asyncio.timeout(WRITER_WAIT_S):
                await self._writer_lock.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"Database {self.path} is busy: no turn to write within {WRITER_WAIT_S:.0f} s",
                advice="Try again.",
            ) from error
        try:
            opened = self._require_open()
            session, thread = opened.writers(), opened.write_thread
            try:
                yield WriteSession(ReadSession(session, thread))
                await thread.run(session.commit)
            finally:
                thread.post(session.close)
        except SQLAlchemyError as error:
            raise database_fault(error, str(self.path)) from error
        finally:
            self._writer_lock.release()


def _probe(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
