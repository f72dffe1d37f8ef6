"""Files that keep head and tail of a stream."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.hypervisor.qemu.bounded import BoundedFile, PipeDrain

HEAD_BYTES = 100
LIMIT_BYTES = 1000


@pytest.fixture
def file(tmp_path: Path) -> BoundedFile:
    return BoundedFile(tmp_path / "log", head_bytes=HEAD_BYTES, limit_bytes=LIMIT_BYTES)


def test_small_output_is_kept_whole(file: BoundedFile) -> None:
    file.append(b"one ")
    file.append(b"two")
    assert file.path.read_bytes() == b"one two"


def test_long_output_keeps_head_and_newest(file: BoundedFile) -> None:
    stream = b"".join(b"line %06d\n" % number for number in range(1000))
    for start in range(0, len(stream), 97):
        file.append(stream[start : start + 97])
    kept = file.path.read_bytes()
    assert len(kept) <= LIMIT_BYTES
    assert kept.startswith(stream[:HEAD_BYTES])
    assert kept.endswith(stream[-200:])


def test_gap_tells_how_much_is_missing(file: BoundedFile) -> None:
    total = 5000
    for _ in range(total // 50):
        file.append(b"x" * 50)
    kept = file.path.read_bytes()
    gap = kept[HEAD_BYTES : kept.index(b"here]\n") + 6]
    missing = int(gap.split()[1])
    assert missing + len(kept) - len(gap) == total


def test_one_huge_piece_stays_below_the_limit(file: BoundedFile) -> None:
    file.append(b"y" * LIMIT_BYTES * 20)
    assert file.path.stat().st_size <= LIMIT_BYTES


@settings(deadline=None)  # files, on a machine that has other work
@given(st.lists(st.binary(max_size=700), max_size=30))
def test_any_output_stays_below_the_limit(tmp_path_factory: object, pieces: list[bytes]) -> None:
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    path = tmp_path_factory.mktemp("bounded") / "log"
    file = BoundedFile(path, head_bytes=HEAD_BYTES, limit_bytes=LIMIT_BYTES)
    for piece in pieces:
        file.append(piece)
        assert path.stat().st_size <= LIMIT_BYTES


def test_tail_of_a_missing_file_is_empty(file: BoundedFile) -> None:
    assert file.read_tail(100) == ""


def test_tail_is_text_even_of_bytes_that_are_none(file: BoundedFile) -> None:
    file.append(b"\xff\xfeend")
    assert file.read_tail(3) == "end"
    assert file.read_tail(100).endswith("end")


async def test_drain_takes_all_up_to_the_writers_end(file: BoundedFile) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    drain = PipeDrain(read_fd, file)
    drain.start()
    os.write(write_fd, b"first ")
    await asyncio.sleep(0)
    os.write(write_fd, b"last")
    os.close(write_fd)
    await drain.finish()
    assert file.path.read_bytes() == b"first last"


async def test_drain_goes_on_when_its_file_cannot_be_written(tmp_path: Path) -> None:
    file = BoundedFile(tmp_path / "gone" / "log", head_bytes=HEAD_BYTES, limit_bytes=LIMIT_BYTES)
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    drain = PipeDrain(read_fd, file)
    drain.start()
    os.write(write_fd, b"lost")
    async with asyncio.timeout(5):
        while drain.lost_bytes == 0:  # noqa: ASYNC110 -- a thread fails
            await asyncio.sleep(0)
    file.path.parent.mkdir()
    os.write(write_fd, b"kept")
    os.close(write_fd)
    await drain.finish()
    assert file.path.read_bytes() == b"kept"


async def test_drain_closed_leaves_the_rest_to_the_next(file: BoundedFile) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    kept_fd = os.dup(read_fd)
    drain = PipeDrain(read_fd, file)
    drain.start()
    await drain.close()
    os.write(write_fd, b"later")
    os.close(write_fd)
    heir = PipeDrain(kept_fd, file)
    heir.start()
    await heir.finish()
    assert file.path.read_bytes() == b"later"


async def test_drain_finish_does_not_wait_for_a_writer_that_stays(
    file: BoundedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.hypervisor.qemu.bounded.FINISH_DEADLINE_S", 0.05)
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    drain = PipeDrain(read_fd, file)
    drain.start()
    async with asyncio.timeout(5):
        await drain.finish()
    os.close(write_fd)
