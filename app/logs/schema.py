"""Tables of a day's log file and connections to it.

A chunk's id is the row of its words. `words` is contentless: it says which chunks hold a word, the
chunk itself holds the text. SQLite 3.40 (Debian 12) is enough.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from app.core.errors import Unsupported

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
FILE_SUFFIX = ".db"
CORRUPT_SUFFIX = ".db.corrupt"
# FULL: an acknowledged line is gone from the guest, so a commit must mean "on the disk".
WRITER_PRAGMAS: tuple[str, ...] = ("journal_mode = WAL", "synchronous = FULL")
_TABLES = """
CREATE TABLE containers (
    number INTEGER PRIMARY KEY,
    container_id TEXT NOT NULL UNIQUE,
    first_seq INTEGER,          -- of the lines in this file; NULL: none
    last_seq INTEGER NOT NULL,  -- of the container's log, wherever that line is
    revision INTEGER NOT NULL
);
CREATE TABLE cursors (
    number INTEGER NOT NULL,
    source TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    pending BLOB NOT NULL,      -- a block, see app.logs.blocks
    revision INTEGER NOT NULL,
    PRIMARY KEY (number, source)
) WITHOUT ROWID;
CREATE TABLE tail (
    number INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    block BLOB NOT NULL,
    PRIMARY KEY (number, first_seq)
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    first_time_ns INTEGER NOT NULL,
    last_time_ns INTEGER NOT NULL,
    block BLOB NOT NULL,        -- compressed
    UNIQUE (number, first_seq)
);
CREATE VIRTUAL TABLE words USING fts5(
    body, content = '', detail = none, tokenize = 'unicode61 remove_diacritics 0'
);
-- Merge less than FTS5 does by itself: a file is written for one day.
INSERT INTO words (words, rank) VALUES ('automerge', 16);
"""


def day_path(root: Path, day: date) -> Path:
    """Where the file of a day lies."""
    return root / f"{day.isoformat()}{FILE_SUFFIX}"


def day_of(path: Path) -> date | None:
    """The day of a log file or of a damaged one set aside; None for anything else."""
    name, dot, rest = path.name.partition(".")
    if not dot or not f".{rest}".startswith(FILE_SUFFIX) or path.name.endswith(("-wal", "-shm")):
        return None
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open or make the file (mode 0600).

    Raises:
        sqlite3.Error: As SQLite reports it; nothing is left open.
        Unsupported: A newer release wrote the file.
    """
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        for pragma in WRITER_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _ensure_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write; commits at the end, rolls back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A consistent view of the file, in this thread.

    Raises:
        sqlite3.Error: As SQLite reports it, also when the file is gone.
    """
    uri = f"{path.resolve().as_uri()}?mode=rw"  # rw: does not make the file
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def _ensure_tables(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Unsupported(
            f"Log file {path} has version {version}; this release knows {SCHEMA_VERSION}",
            advice="Use the release of Slipway that wrote it, or a newer one.",
        )
    if version < SCHEMA_VERSION:
        with transaction(connection):
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
