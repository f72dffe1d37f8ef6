"""Full-text search in one day's file: chunks that hold the words, then the lines that do."""

import heapq
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.core.errors import CorruptData
from app.domain.lines import NewLine
from app.domain.log import LogLine
from app.logs.blocks import decode_block, decompress_block, number_lines
from app.logs.schema import reading

# Letters, digits and combining marks: what FTS5's unicode61 takes for a part of a word.
_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+")


@dataclass(frozen=True)
class SearchHit:
    """A line that holds all the words."""

    container_id: str
    line: LogLine


def search_day(
    path: Path, words: Sequence[str], *, container_ids: Collection[str] | None, limit: int
) -> list[SearchHit]:
    """The newest `limit` lines that hold every word, newest first.

    Raises:
        sqlite3.Error: As SQLite reports it.
    """
    wanted = frozenset(word for text in words for word in _words(text))
    if not wanted or limit <= 0:
        return []
    newest: list[_Hit] = []
    collect = partial(_collect, newest, limit, wanted)
    with reading(path) as connection:
        names = _containers(connection, container_ids)
        for number, first_seq, lines in _tail_blocks(connection, wanted):
            if number in names:
                collect(names[number], number_lines(lines, first_seq))
        for chunk_id, number, first_seq, last_time_ns in _candidates(connection, wanted):
            if len(newest) == limit and last_time_ns < newest[0][0]:
                break
            if number in names:
                lines = _chunk(connection, chunk_id)
                collect(names[number], number_lines(lines, first_seq))
    return [SearchHit(name, line) for _, _, name, line in sorted(newest, reverse=True)]


# Time, number, container: no two lines agree in all three, so lines are never compared.
_Hit = tuple[int, int, str, LogLine]


def _collect(
    newest: list[_Hit], limit: int, wanted: frozenset[str], name: str, lines: Sequence[LogLine]
) -> None:
    """Keep lines that hold the words in a heap whose first is the oldest kept."""
    for line in lines:
        if not _may_hold(wanted, line.data) or not wanted.issubset(_words(line.text)):
            continue
        hit = (line.time_ns, line.seq, name, line)
        if len(newest) < limit:
            heapq.heappush(newest, hit)
        else:
            heapq.heappushpop(newest, hit)


def _may_hold(wanted: frozenset[str], data: bytes) -> bool:
    """A quick look before bytes are cut into lines and words."""
    data = data.lower()
    return all([word.encode() in data for word in wanted if word.isascii()])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _containers(
    connection: sqlite3.Connection, container_ids: Collection[str] | None
) -> dict[int, str]:
    rows = connection.execute("SELECT number, container_id FROM containers")
    return {number: name for number, name in rows if container_ids is None or name in container_ids}


def _tail_blocks(
    connection: sqlite3.Connection, wanted: frozenset[str]
) -> Iterator[tuple[int, int, list[NewLine]]]:
    for number, first_seq, block in connection.execute("SELECT number, first_seq, block FROM tail"):
        if _may_hold(wanted, block):
            with suppress(CorruptData):
                yield number, first_seq, decode_block(block)


def _candidates(
    connection: sqlite3.Connection, wanted: frozenset[str]
) -> Iterator[tuple[int, int, int, int]]:
    """Chunks in which each word occurs somewhere, those with the newest line first."""
    query = " AND ".join(f'"{word}"' for word in wanted)
    return connection.execute(
        "SELECT c.id, number, first_seq, last_time_ns"
        " FROM words JOIN chunks c ON c.id = words.rowid"
        " WHERE words MATCH ? ORDER BY last_time_ns DESC",
        (query,),
    )


def _chunk(connection: sqlite3.Connection, chunk_id: int) -> list[NewLine]:
    """A chunk's lines; none if it can't be read."""
    (block,) = connection.execute("SELECT block FROM chunks WHERE id = ?", (chunk_id,)).fetchone()
    with suppress(CorruptData):
        return decode_block(decompress_block(block))
    return []
