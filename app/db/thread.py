"""A thread that does blocking work for the event loop, in the order in which it was asked for.

It costs a third of what an executor does: the lines between a loop and its database are many and
short.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from app.core.errors import Unavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)

_Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None"]


class DatabaseThread:
    """Runs from its making until `stop`."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives; a caller that is cancelled does not stop it.

        Raises:
            Unavailable: The thread has been stopped.
        """
        if self._is_stopped:
            raise Unavailable("The database is closed")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, done))
        return await done

    def post(self, work: Callable[[], object]) -> None:
        """Do it after all that was asked for before, with nobody waiting; here if stopped."""
        if self._is_stopped:
            self._thread.join()
            work()
        else:
            self._jobs.put((work, None))

    def stop(self) -> None:
        """Do all that was asked for, and end; blocks. Idempotent."""
        self._is_stopped = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result, error = None, None
            try:
                result = work()
            except Exception as raised:  # noqa: BLE001 - goes to who asked
                error = raised
            if done is not None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    done.get_loop().call_soon_threadsafe(_settle, done, result, error)
            elif error is not None:
                logger.error("Work for nobody failed: %s", error, exc_info=error)
            del job, work, done, result, error  # not kept until the next job comes


def _settle(done: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if done.done():  # cancelled meanwhile
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
