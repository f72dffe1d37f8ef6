"""Blocking steps that must be whole: done in a thread, and waited for even when cancelled."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_whole(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short blocking step in a thread; a cancellation is raised only after it has ended.

    So whoever cleans up afterwards never races with a thread that is still making things. The
    step's own error is lost when the caller was cancelled.
    """
    task = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that it is not reported as forgotten
        raise
