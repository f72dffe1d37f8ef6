"""Steps that must be whole: waited for even when the caller is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finish(step: Awaitable[T]) -> T:
    """Await a short step to its end; a cancellation is raised only after that.

    So whoever cleans up afterwards never races with a step that is still making things. The
    step's own error is lost when the caller was cancelled.
    """
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that it is not reported as forgotten
        raise


async def run_whole(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short blocking step in a thread and `finish()` it."""
    return await finish(asyncio.to_thread(step, *args, **kwargs))
