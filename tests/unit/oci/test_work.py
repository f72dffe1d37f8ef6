"""Threads that stop when their caller does."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator

import pytest

from app.core.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from app.oci.streams import CancelToken
from app.oci.work import Workers, disk_error


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    pool = Workers(threads=1)
    yield pool
    await pool.close()


async def test_run_gives_the_result(workers: Workers) -> None:
    assert await workers.run(lambda _: 7, what="x", timeout_s=5) == 7


async def test_run_passes_errors(workers: Workers) -> None:
    def fail(_: CancelToken) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await workers.run(fail, what="x", timeout_s=5)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_run_full_disk(workers: Workers, code: int) -> None:
    def fail(_: CancelToken) -> None:
        raise OSError(code, "full")

    with pytest.raises(ResourceExhausted, match="storing: no space left"):
        await workers.run(fail, what="storing", timeout_s=5)


async def test_run_real_full_device(workers: Workers) -> None:
    def fill(_: CancelToken) -> None:
        with open("/dev/full", "wb") as file:  # noqa: PTH123
            file.write(bytes(1 << 20))

    with pytest.raises(ResourceExhausted):
        await workers.run(fill, what="storing", timeout_s=5)


def test_disk_error_names_the_file() -> None:
    error = disk_error(PermissionError(errno.EACCES, "Permission denied", "/x/y"), "opening")
    assert isinstance(error, Unavailable)
    assert error.message == "opening: Permission denied: /x/y"


class Blocked:
    """Work that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = False

    def __call__(self, token: CancelToken) -> None:
        gone = threading.Event()
        token.on_cancel(gone.set)
        self.started.set()
        gone.wait(15)
        self.ended = True
        token.check()


async def test_run_cancelled_returns_after_the_thread_ended(workers: Workers) -> None:
    work = Blocked()
    task = asyncio.ensure_future(workers.run(work, what="x", timeout_s=60))
    await asyncio.to_thread(work.started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_run_deadline_stops_the_thread(workers: Workers) -> None:
    work = Blocked()
    with pytest.raises(DeadlineExceeded, match="converting took longer"):
        await workers.run(work, what="converting", timeout_s=0.05)
    assert work.ended


async def test_run_cancelled_while_queued_never_starts_late(workers: Workers) -> None:
    first, second = Blocked(), Blocked()
    running = asyncio.ensure_future(workers.run(first, what="x", timeout_s=60))
    await asyncio.to_thread(first.started.wait, 10)
    queued = asyncio.ensure_future(workers.run(second, what="x", timeout_s=60))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert not second.started.is_set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not second.started.is_set()
