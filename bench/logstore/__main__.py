"""Log store: durable ingest, reads and search, beside a plain row-per-line SQLite in the same run.

Both commit each batch to the disk before the next (WAL, synchronous FULL). Prints one JSON line per
result. Usage: PYTHONPATH=. python bench/logstore [thousands of lines]
"""

import asyncio
import json
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogStream
from app.logs.store import LogStore

BATCH_LINES = 500  # about what the engine takes from one guest at a time
QUIET_CONTAINERS = 50
QUIET_APPENDS = 40
DEFAULT_THOUSANDS = 500
RARE_WORD = "zanzibar"


def make_lines(count: int) -> list[bytes]:
    """Access log, JSON and application lines, mixed; one in 100,000 holds the rare word."""
    chance = random.Random(1)
    lines = []
    for number in range(count):
        kind = number % 3
        if kind == 0:
            text = (
                f"10.0.{chance.randrange(256)}.{chance.randrange(256)} - - GET "
                f"/api/v1/items/{chance.randrange(10**6)} HTTP/1.1 {chance.choice((200, 304, 500))}"
            )
        elif kind == 1:
            text = json.dumps(
                {"level": chance.choice(("info", "error")), "id": number, "ms": chance.random()}
            )
        else:
            text = f"worker {number % 16} finished job {chance.randrange(10**9):x} without error"
        if number % 100_000 == 50_000:
            text += f" {RARE_WORD}"
        lines.append(text.encode())
    return lines


def report(result: str, subject: str, **numbers: float) -> None:
    rounded = {name: round(value, 3) for name, value in numbers.items()}
    print(json.dumps({"bench": "logstore", "result": result, "of": subject, **rounded}), flush=True)


def batches(lines: list[bytes]) -> list[list[NewLine]]:
    began_ns = time.time_ns()
    return [
        [
            NewLine(began_ns + at + index, LogStream.STDOUT, text)
            for index, text in enumerate(lines[at : at + BATCH_LINES])
        ]
        for at in range(0, len(lines), BATCH_LINES)
    ]


async def ingest(store: LogStore, lines: list[bytes]) -> None:
    """One container that never stops: each batch is acknowledged before the next is given."""
    work = batches(lines)
    began_s = time.perf_counter()
    for number, batch in enumerate(work, 1):
        await store.append("loud", batch, LogCursor("vm", number))
    elapsed_s = time.perf_counter() - began_s
    report("ingest", "slipway", lines_per_s=len(lines) / elapsed_s, elapsed_s=elapsed_s)


async def ingest_quiet(store: LogStore) -> None:
    """Many containers with a line now and then: how long one waits for its acknowledgement."""
    waits_ms: list[float] = []

    async def pump(number: int) -> None:
        for offset in range(1, QUIET_APPENDS + 1):
            line = NewLine(time.time_ns(), LogStream.STDOUT, b"tick %d" % offset)
            began_s = time.perf_counter()
            await store.append(f"quiet{number}", [line], LogCursor("vm", offset))
            waits_ms.append((time.perf_counter() - began_s) * 1000)

    began_s = time.perf_counter()
    await asyncio.gather(*(pump(number) for number in range(QUIET_CONTAINERS)))
    elapsed_s = time.perf_counter() - began_s
    report(
        "quiet-containers",
        "slipway",
        appends_per_s=len(waits_ms) / elapsed_s,
        median_ms=statistics.median(waits_ms),
        p99_ms=statistics.quantiles(waits_ms, n=100)[98],
    )


async def read(store: LogStore, count: int) -> None:
    async def timed(result: str, run: Callable[[], object]) -> None:
        times_ms = []
        for _ in range(20):
            began_s = time.perf_counter()
            await run()  # type: ignore[misc]
            times_ms.append((time.perf_counter() - began_s) * 1000)
        report(result, "slipway", median_ms=statistics.median(times_ms))

    chance = random.Random(2)
    await timed(
        "read-500", lambda: store.read("loud", from_seq=chance.randrange(count - 500), limit=500)
    )
    await timed("tail-1000", lambda: store.tail("loud", limit=1000))
    await timed("search-common", lambda: store.search(["error"], limit=100))
    await timed("search-rare", lambda: store.search([RARE_WORD], limit=100))


async def bench_slipway(root: Path, lines: list[bytes]) -> None:
    store = LogStore(root)
    await store.open()
    await ingest(store, lines)
    await ingest_quiet(store)
    await read(store, len(lines))
    await store.close()
    report_size("slipway", root, lines)


def bench_rows(root: Path, lines: list[bytes]) -> None:
    """The peer: a table with a row for each line."""
    root.mkdir()
    work = batches(lines)
    with closing(sqlite3.connect(root / "rows.db", isolation_level=None)) as connection:
        execute = connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute(
            "CREATE TABLE lines (container TEXT, seq INTEGER, time_ns INTEGER, stream TEXT,"
            " data BLOB, PRIMARY KEY (container, seq)) WITHOUT ROWID"
        )
        began_s = time.perf_counter()
        seq = 0
        for batch in work:
            execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO lines VALUES ('loud', ?, ?, ?, ?)",
                [
                    (seq + index, line.time_ns, line.stream.value, line.data)
                    for index, line in enumerate(batch, 1)
                ],
            )
            execute("COMMIT")
            seq += len(batch)
        elapsed_s = time.perf_counter() - began_s
        report("ingest", "row per line", lines_per_s=len(lines) / elapsed_s, elapsed_s=elapsed_s)
        middle = len(lines) // 2
        queries = {
            "read-500": f"SELECT * FROM lines WHERE container='loud' AND seq>={middle} LIMIT 500",
            "tail-1000": "SELECT * FROM lines WHERE container='loud' ORDER BY seq DESC LIMIT 1000",
            "search-common": "SELECT * FROM lines WHERE data LIKE '%error%' ORDER BY seq DESC"
            " LIMIT 100",
            "search-rare": f"SELECT * FROM lines WHERE data LIKE '%{RARE_WORD}%' ORDER BY seq DESC"
            " LIMIT 100",
        }
        for result, query in queries.items():
            times_ms = []
            for _ in range(5):
                began_s = time.perf_counter()
                execute(query).fetchall()
                times_ms.append((time.perf_counter() - began_s) * 1000)
            report(result, "row per line", median_ms=statistics.median(times_ms))
    report_size("row per line", root, lines)


def report_size(subject: str, root: Path, lines: list[bytes]) -> None:
    stored_bytes = sum(path.stat().st_size for path in root.iterdir())
    report("size", subject, times_raw=stored_bytes / sum(len(text) + 1 for text in lines))


def main() -> None:
    count = 1000 * int(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_THOUSANDS)
    lines = make_lines(count)
    root = Path(tempfile.mkdtemp(prefix="slipway-bench-logs-", dir=Path.home()))
    try:
        asyncio.run(bench_slipway(root / "slipway", lines))
        bench_rows(root / "rows", lines)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
