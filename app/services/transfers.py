"""A pull or push under way, as its caller follows it."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable

from app.domain.registry import LayerProgress, Transfer
from app.oci.work import settle

Report = Callable[[Transfer], None]
Work = Callable[[Report], Awaitable[None]]


class RunningTransfer:
    """Steps of a pull or push; whoever has it must close it, which ends the work.

    A slow reader loses nothing but counts of bytes: of those the newest is kept for each layer.
    """

    def __init__(self, work: Work) -> None:
        self._steps: OrderedDict[object, Transfer] = OrderedDict()
        self._changed = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Work) -> None:
        try:
            await work(self._add)
        finally:
            self._changed.set()

    def _add(self, step: Transfer) -> None:
        counts = isinstance(step, LayerProgress) and step.total_bytes > 0
        key: object = (
            (step.layer, step.stage) if isinstance(step, LayerProgress) and counts else step
        )
        self._steps[key] = step
        self._changed.set()

    async def begin(self) -> None:
        """Wait for the first step.

        Raises:
            SlipwayError: The work has failed before it; it is closed then.
        """
        try:
            await self._changed.wait()
            if not self._steps and self._task.done():
                self._task.result()
        except BaseException:
            await self.close()
            raise

    async def steps(self) -> AsyncIterator[Transfer]:
        """All steps to the end.

        Raises:
            SlipwayError: The work has failed.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._steps:
                yield self._steps.popitem(last=False)[1]
            if self._task.done():
                self._task.result()
                return

    async def close(self) -> None:
        """End the work if it hasn't ended. Idempotent."""
        self._task.cancel()
        await settle(self._task)
