"""A line that was acknowledged before kill -9 is there after it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.lines import LineAssembler
from app.domain.log import LogLine, LogStream
from app.logs.store import LogStore

# Writes numbered lines of two containers and says on stdout what has been acknowledged.
CHILD = """
import asyncio, sys
from pathlib import Path
from app.domain.lines import LineAssembler, LogCursor
from app.domain.log import LogStream
from app.logs.store import LogStore

async def pump(store, name, lines_per_append):
    cursor = await store.cursor(name, "vm")
    assembler = LineAssembler(cursor.pending)
    offset, number = cursor.offset, store.last_seq(name)
    known_bytes = len(cursor.pending[LogStream.STDOUT].data) if cursor.pending else 0
    while True:
        text = b"".join(b"%d\\n" % (number + i) for i in range(1, lines_per_append + 1))
        text, known_bytes = text[known_bytes:], 0
        cut = len(text) // 2  # in the midst of a line, as frames are
        for part in (text[:cut], text[cut:]):
            offset += len(part)
            lines = assembler.feed([(1, LogStream.STDOUT, part)])
            await store.append(name, lines, LogCursor("vm", offset, assembler.pending))
            sys.stdout.write(f"{name} {offset} {store.last_seq(name)}\\n")
            sys.stdout.flush()
        number += lines_per_append

async def main():
    store = LogStore(Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(pump(store, "slow", 3), pump(store, "fast", 700))

asyncio.run(main())
"""


async def read_all(store: LogStore, name: str) -> list[LogLine]:
    lines: list[LogLine] = []
    while page := await store.read(name, from_seq=len(lines) + 1, limit=1000):
        lines.extend(page)
    return lines


def run_and_kill(root: Path, acknowledgements: int) -> dict[str, tuple[int, int]]:
    """Kill the writer in the midst of its work; return offset and number last acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    acknowledged: dict[str, tuple[int, int]] = {}
    try:
        for _ in range(acknowledgements):
            name, offset, seq = child.stdout.readline().split()
            acknowledged[name] = int(offset), int(seq)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):  # printed between the last read and the kill
                name, offset, seq = line.split()
                acknowledged[name] = int(offset), int(seq)
        child.stdout.close()
        child.wait(10)
    return acknowledged


@pytest.mark.timeout(60)
async def test_acknowledged_lines_survive_kill_9(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    for acknowledgements in (5, 40, 200):
        acknowledged = run_and_kill(root, acknowledgements)
        store = LogStore(root)
        await store.open()
        for name, (offset, seq) in acknowledged.items():
            lines = await read_all(store, name)
            assert [line.data for line in lines] == [b"%d" % n for n in range(1, len(lines) + 1)]
            assert len(lines) == store.last_seq(name) >= seq
            cursor = await store.cursor(name, "vm")
            assert cursor.offset >= offset
            stored_bytes = sum(len(line.data) + 1 for line in lines)
            pending = LineAssembler(cursor.pending).pending.get(LogStream.STDOUT)
            assert cursor.offset == stored_bytes + (len(pending.data) if pending else 0)
        await store.close()
