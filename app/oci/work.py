"""Runs blocking work in threads that stop when their caller does, and converts OS errors."""

import asyncio
import concurrent.futures
import errno
from collections.abc import Callable
from typing import TypeVar

from app.core.errors import DeadlineExceeded, ResourceExhausted, SlipwayError, Unavailable
from app.oci.streams import CancelToken

T = TypeVar("T")

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_error(error: OSError, what: str) -> SlipwayError:
    """The error of ours that an OS error during `what` means."""
    if error.errno in _DISK_FULL:
        return ResourceExhausted(
            f"{what}: no space left on the disk",
            advice="Remove unused images or containers, or move the data directory to a larger "
            "disk, then try again.",
        )
    return Unavailable(
        f"{what}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
        advice="Check that the data directory is on a healthy disk and belongs to Slipway's user.",
    )


class Workers:
    """A few threads for heavy work, and a few for writing uploads.

    Apart from each other, and from the loop's own pool: a slow disk or a long conversion holds up
    imports, not the rest of the engine.
    """

    def __init__(self, threads: int = 2) -> None:
        self._writers = concurrent.futures.ThreadPoolExecutor(
            threads, thread_name_prefix="slipway-uploads"
        )
        self._pool = concurrent.futures.ThreadPoolExecutor(
            threads, thread_name_prefix="slipway-images"
        )

    async def run(self, function: Callable[[CancelToken], T], *, what: str, timeout_s: float) -> T:
        """Run `function(token)` in a thread.

        On cancellation or timeout the token is cancelled, and this returns only when the thread
        has ended: nothing of it runs afterwards, so that its files can be removed.

        Raises:
            DeadlineExceeded: Not done within `timeout_s` seconds.
            ResourceExhausted: The disk is full.
            Unavailable: Another OS error.
        """
        token = CancelToken()
        pending = self._pool.submit(function, token)
        future = asyncio.wrap_future(pending)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError as error:
            await _abandon(token, pending, future)
            raise DeadlineExceeded(f"{what} took longer than {timeout_s:.0f} s") from error
        except asyncio.CancelledError:
            await _abandon(token, pending, future)
            raise
        except OSError as error:
            raise disk_error(error, what) from error

    async def write(self, function: Callable[[], T]) -> T:
        """Run one short step of an upload: a write or a sync."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, function)

    async def close(self) -> None:
        """Wait for running work and end the threads. Idempotent."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._writers.shutdown)


async def settle(future: "asyncio.Future[T]") -> None:
    """Wait until `future` is done, whatever it brings, even if cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # seen: nobody else will ask


async def _abandon(
    token: CancelToken, pending: "concurrent.futures.Future[T]", future: "asyncio.Future[T]"
) -> None:
    token.cancel()
    pending.cancel()  # what waits for a thread never starts; what runs sees the token
    await settle(future)
