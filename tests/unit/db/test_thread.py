import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from app.core.errors import Unavailable
from app.db.thread import DatabaseThread


@pytest.fixture
def thread() -> Iterator[DatabaseThread]:
    made = DatabaseThread("database-test")
    yield made
    made.stop()


async def test_work_is_done_elsewhere_and_gives_its_result(thread: DatabaseThread) -> None:
    assert await thread.run(lambda: threading.current_thread().name) == "database-test"


async def test_an_error_goes_to_who_asked(thread: DatabaseThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 2) == 2


async def test_work_keeps_its_order_though_nobody_waits_any_more(thread: DatabaseThread) -> None:
    going, done = threading.Event(), list[int]()

    def wait() -> None:
        assert going.wait(5)
        done.append(1)

    asked = asyncio.create_task(thread.run(wait))
    await asyncio.sleep(0)
    asked.cancel()
    thread.post(lambda: done.append(2))
    with pytest.raises(asyncio.CancelledError):
        await asked
    going.set()
    await thread.run(lambda: done.append(3))
    assert done == [1, 2, 3]


async def test_an_error_that_nobody_waits_for_is_told(
    thread: DatabaseThread, caplog: pytest.LogCaptureFixture
) -> None:
    thread.post(lambda: 1 // 0)
    with caplog.at_level(logging.ERROR):
        await thread.run(lambda: None)
    assert "Work for nobody failed: integer division" in caplog.text


async def test_stop_does_what_was_asked_for() -> None:
    made, done = DatabaseThread("database-stopped"), list[int]()
    made.post(lambda: done.append(1))
    await asyncio.to_thread(made.stop)
    assert done == [1]


async def test_a_stopped_thread_refuses_and_still_cleans_up(thread: DatabaseThread) -> None:
    await asyncio.to_thread(thread.stop)
    with pytest.raises(Unavailable, match="closed"):
        await thread.run(lambda: 1)
    done = list[int]()
    thread.post(lambda: done.append(1))
    assert done == [1]


def test_a_loop_that_is_gone_does_not_end_the_thread(thread: DatabaseThread) -> None:
    going = threading.Event()

    async def ask() -> None:
        asking = asyncio.create_task(thread.run(lambda: going.wait(5)))
        await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(ask())
    going.set()
    assert asyncio.run(thread.run(lambda: 7)) == 7
