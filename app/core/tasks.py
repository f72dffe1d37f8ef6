"""What asyncio's task groups leave to those who use them."""

import asyncio


def raise_if_cancelled() -> None:
    """Go on when a cancellation met a fault: TaskGroup of Python 3.11 reports only that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
