"""One day's file as its only writer sees it; all of it in the writer's thread.

Callers wrap changes in `DayFile.transaction`. After a rollback what is kept in memory here is read
again from the file.
"""

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from app.core.errors import CorruptData
from app.domain.lines import LogCursor, NewLine
from app.logs.blocks import (
    block_text,
    compress_block,
    decode_block,
    decompress_block,
    encode_block,
    encode_pending,
)
from app.logs.catalogue import LogState
from app.logs.schema import connect_writer, transaction

CHUNK_LINES = 256  # a chunk has up to twice as many
CHUNK_BYTES = 256 * 1024  # a chunk of longest lines is read whole for one of them
SEAL_AFTER_S = 60.0
SOURCES_KEPT = 8  # cursors of a container; older runs have been drained long ago
ERASE_SLICE_CHUNKS = 64


@dataclass
class _Tail:
    """Lines of one container that are not sealed."""

    lines: int
    size_bytes: int
    since_s: float  # monotonic


class DayFile:
    """Opened by its constructor; `close()` is safe in any state.

    Raises:
        sqlite3.Error: From every method, as SQLite reports it.
    """

    def __init__(self, path: Path, day: date) -> None:
        self.path = path
        self.day = day
        self._connection = connect_writer(path)
        self._numbers: dict[str, int] = {}
        self._tails: dict[int, _Tail] = {}
        try:
            self._load()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        try:
            with transaction(self._connection):
                yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._load()
            raise

    def close(self, *, retire: bool = False) -> None:
        """Close; a file that nothing more is written to leaves write-ahead mode with `retire`."""
        with suppress(sqlite3.Error):  # somebody reads it just now: the next closing does it
            if retire:
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    @property
    def has_tail(self) -> bool:
        """Whether lines wait to be sealed."""
        return bool(self._tails)

    def put_lines(self, container_id: str, first_seq: int, lines: Sequence[NewLine]) -> None:
        """Add lines: to the tail, or with all of it to chunks once there are enough."""
        number = self._number(container_id)
        tail = self._tails.get(number)
        size_bytes = sum([len(line.data) for line in lines])
        count = len(lines) + (tail.lines if tail else 0)
        total_bytes = size_bytes + (tail.size_bytes if tail else 0)
        if count < CHUNK_LINES and total_bytes < CHUNK_BYTES:
            self._put_tail(number, first_seq, lines, size_bytes)
            return
        for run_seq, run in self._take_tail(number, first_seq, lines):
            self._put_chunks(number, run_seq, run)

    def put_state(self, container_id: str, state: LogState, *, first_seq: int | None) -> None:
        """Record where the log stands; `first_seq` of the lines added now, None if there are none.

        The file's own first number only ever gets lower.
        """
        self._connection.execute(
            "UPDATE containers SET last_seq = ?, revision = ?,"
            " first_seq = min(ifnull(first_seq, ?), ifnull(?, first_seq)) WHERE number = ?",
            (state.last_seq, state.revision, first_seq, first_seq, self._number(container_id)),
        )

    def put_cursor(self, container_id: str, cursor: LogCursor, revision: int) -> None:
        """Record how much of a source is stored."""
        number = self._number(container_id)
        self._connection.execute(
            "INSERT INTO cursors VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            ' "offset" = excluded."offset", pending = excluded.pending,'
            " revision = excluded.revision",
            (number, cursor.source, cursor.offset, encode_pending(cursor.pending), revision),
        )
        self._connection.execute(
            "DELETE FROM cursors WHERE number = ? AND revision <"
            " (SELECT revision FROM cursors WHERE number = ? ORDER BY revision DESC"
            "  LIMIT 1 OFFSET ?)",
            (number, number, SOURCES_KEPT - 1),
        )

    def is_due(self, now_s: float) -> bool:
        """Whether a tail has waited for SEAL_AFTER_S at this monotonic time."""
        return any(now_s - tail.since_s >= SEAL_AFTER_S for tail in self._tails.values())

    def seal(self, now_s: float) -> None:
        """Seal every tail that has waited long enough."""
        for number, tail in list(self._tails.items()):
            if now_s - tail.since_s >= SEAL_AFTER_S:
                for first_seq, run in self._take_tail(number, 0, ()):
                    self._put_chunks(number, first_seq, run)

    def erase_slice(self, container_id: str) -> bool:
        """Delete some of a container; True while there is more.

        The row that says the file holds it goes last.
        """
        number = self._numbers.get(container_id)
        if number is None:
            return False
        execute = self._connection.execute
        execute("PRAGMA secure_delete = ON")
        chunks = execute(
            "SELECT id, block FROM chunks WHERE number = ? LIMIT ?", (number, ERASE_SLICE_CHUNKS)
        ).fetchall()
        for chunk_id, block in chunks:
            with suppress(CorruptData):  # its words can't be named any more; its row can go
                text = block_text(decode_block(decompress_block(block)))
                execute(
                    "INSERT INTO words (words, rowid, body) VALUES ('delete', ?, ?)",
                    (chunk_id, text),
                )
            execute("DELETE FROM chunks WHERE id = ?", (chunk_id,))
        if len(chunks) == ERASE_SLICE_CHUNKS:
            return True
        for table in ("tail", "cursors", "containers"):
            execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608 - our names
        self._numbers.pop(container_id)
        self._tails.pop(number, None)
        return False

    def _load(self) -> None:
        execute = self._connection.execute
        self._numbers = dict(execute("SELECT container_id, number FROM containers").fetchall())
        now_s = time.monotonic()
        self._tails = {
            number: _Tail(lines, size_bytes, now_s)
            for number, lines, size_bytes in execute(
                "SELECT number, sum(last_seq - first_seq + 1), sum(length(block))"
                " FROM tail GROUP BY number"
            )
        }

    def _number(self, container_id: str) -> int:
        number = self._numbers.get(container_id)
        if number is None:
            cursor = self._connection.execute(
                "INSERT INTO containers (container_id, last_seq, revision) VALUES (?, 0, 0)",
                (container_id,),
            )
            number = self._numbers[container_id] = int(cursor.lastrowid or 0)
        return number

    def _put_tail(
        self, number: int, first_seq: int, lines: Sequence[NewLine], size_bytes: int
    ) -> None:
        self._connection.execute(
            "INSERT INTO tail VALUES (?, ?, ?, ?)",
            (number, first_seq, first_seq + len(lines) - 1, encode_block(lines)),
        )
        tail = self._tails.setdefault(number, _Tail(0, 0, time.monotonic()))
        tail.lines += len(lines)
        tail.size_bytes += size_bytes

    def _take_tail(
        self, number: int, first_seq: int, lines: Sequence[NewLine]
    ) -> list[tuple[int, list[NewLine]]]:
        """Remove a container's tail; return it and the lines as runs without a gap in numbers."""
        rows = self._connection.execute(
            "SELECT first_seq, block FROM tail WHERE number = ? ORDER BY first_seq", (number,)
        ).fetchall()
        if rows:
            self._connection.execute("DELETE FROM tail WHERE number = ?", (number,))
        self._tails.pop(number, None)
        pieces = [(seq, decode_block(block)) for seq, block in rows]
        runs: list[tuple[int, list[NewLine]]] = []
        for seq, piece in (*pieces, (first_seq, lines)):
            if runs and runs[-1][0] + len(runs[-1][1]) == seq:
                runs[-1][1].extend(piece)
            elif piece:
                runs.append((seq, list(piece)))
        return runs

    def _put_chunks(self, number: int, first_seq: int, lines: list[NewLine]) -> None:
        """Seal lines: as many chunks of about the same length as there are CHUNK_LINES in them."""
        chunk_lines = math.ceil(len(lines) / max(len(lines) // CHUNK_LINES, 1))
        begin = size_bytes = 0
        for at, line in enumerate(lines):
            size_bytes += len(line.data)
            if at + 1 - begin == chunk_lines or size_bytes >= CHUNK_BYTES:
                self._put_chunk(number, first_seq + begin, lines[begin : at + 1])
                begin, size_bytes = at + 1, 0
        if begin < len(lines):
            self._put_chunk(number, first_seq + begin, lines[begin:])

    def _put_chunk(self, number: int, first_seq: int, lines: list[NewLine]) -> None:
        times = [line.time_ns for line in lines]
        chunk_id = self._connection.execute(
            "INSERT INTO chunks (number, first_seq, last_seq, first_time_ns, last_time_ns, block)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                number,
                first_seq,
                first_seq + len(lines) - 1,
                min(times),
                max(times),
                compress_block(encode_block(lines)),
            ),
        ).lastrowid
        self._connection.execute(
            "INSERT INTO words (rowid, body) VALUES (?, ?)", (chunk_id, block_text(lines))
        )
