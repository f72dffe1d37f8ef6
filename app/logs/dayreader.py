"""Reading one day's file, in any thread, each call with a connection of its own."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import CorruptData, Unsupported
from app.domain.lines import LogCursor
from app.domain.log import LogLine
from app.logs.blocks import decode_block, decode_pending, decompress_block, number_lines
from app.logs.catalogue import LogState
from app.logs.schema import SCHEMA_VERSION, reading


@dataclass(frozen=True)
class StoredState:
    """What a file says of a container; `first_seq` is None if it holds no line of it."""

    container_id: str
    state: LogState
    first_seq: int | None


@dataclass(frozen=True)
class Contents:
    """A file's containers, and whether lines in it wait to be sealed."""

    states: list[StoredState]
    has_tail: bool


@dataclass(frozen=True)
class Page:
    """Lines in order; `is_cut` if the file has more from where they end."""

    lines: list[LogLine]
    is_cut: bool


def load_contents(path: Path) -> Contents:
    """Read what the engine must know of a file at its start.

    Raises:
        sqlite3.Error: As SQLite reports it.
        Unsupported: A newer release wrote the file.
    """
    with reading(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Unsupported(
                f"Log file {path} has version {version}; this release knows {SCHEMA_VERSION}",
                advice="Use the release of Slipway that wrote it, or a newer one.",
            )
        if version == 0:  # the engine ended while it made the file
            return Contents([], has_tail=False)
        rows = connection.execute(
            "SELECT container_id, last_seq, revision, first_seq FROM containers"
        )
        states = [StoredState(name, LogState(last, rev), first) for name, last, rev, first in rows]
        (has_tail,) = connection.execute("SELECT EXISTS (SELECT 1 FROM tail)").fetchone()
    return Contents(states, bool(has_tail))


def load_cursors(path: Path, container_id: str) -> list[tuple[int, LogCursor]]:
    """Every cursor of a container with the revision that wrote it.

    Raises:
        sqlite3.Error: As SQLite reports it.
        CorruptData: What is pending can't be read.
    """
    with reading(path) as connection:
        rows = connection.execute(
            'SELECT c.revision, source, "offset", pending FROM cursors c'
            " JOIN containers USING (number) WHERE container_id = ?",
            (container_id,),
        ).fetchall()
    return [(rev, LogCursor(name, at, decode_pending(block))) for rev, name, at, block in rows]


def read_page(
    path: Path, container_id: str, *, from_seq: int, limit: int, budget_bytes: int
) -> Page:
    """Lines numbered `from_seq` and above, at most `limit` and about `budget_bytes`, at least one.

    A chunk that can't be read is left out.

    Raises:
        sqlite3.Error: As SQLite reports it.
    """
    lines: list[LogLine] = []
    size_bytes = 0
    with reading(path) as connection:
        for line in _lines_from(connection, container_id, from_seq):
            if len(lines) == limit or size_bytes > budget_bytes:
                return Page(lines, is_cut=True)
            lines.append(line)
            size_bytes += len(line.data)
    return Page(lines, is_cut=False)


def _lines_from(
    connection: sqlite3.Connection, container_id: str, from_seq: int
) -> Iterator[LogLine]:
    row = connection.execute(
        "SELECT number FROM containers WHERE container_id = ?", (container_id,)
    ).fetchone()
    if row is None:
        return
    for table, is_compressed in (("chunks", True), ("tail", False)):
        blocks = connection.execute(
            f"SELECT first_seq, block FROM {table} WHERE number = ? AND first_seq >= ifnull("  # noqa: S608 - our names
            f" (SELECT max(first_seq) FROM {table} WHERE number = ? AND first_seq <= ?), 0)"
            " ORDER BY first_seq",
            (row[0], row[0], from_seq),
        )
        for first_seq, block in blocks:
            try:
                decoded = decode_block(decompress_block(block) if is_compressed else block)
            except CorruptData:
                continue
            for line in number_lines(decoded, first_seq):
                if line.seq >= from_seq:
                    yield line
