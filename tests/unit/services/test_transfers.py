"""Following a pull or push."""

import asyncio

import pytest

from app.core.errors import Unavailable
from app.domain.reference import Digest, Reference
from app.domain.registry import LayerProgress, LayerStage, TransferEnded, TransferStarted
from app.services.transfers import Report, RunningTransfer

BEGUN = TransferStarted(Reference.parse("app"))
ENDED = TransferEnded(Reference.parse("app"), Digest("a" * 64), 1, True)


def got(count: int, layer: str = "x") -> LayerProgress:
    return LayerProgress(layer, LayerStage.DOWNLOADING, count, 100)


async def test_a_slow_reader_gets_each_stage_and_the_newest_counts() -> None:
    async def work(report: Report) -> None:
        report(BEGUN)
        report(LayerProgress("x", LayerStage.PULLING))
        for count in range(1, 101):
            report(got(count))
            report(got(count, "y"))
        report(LayerProgress("x", LayerStage.PULLED))
        report(ENDED)

    transfer = RunningTransfer(work)
    await transfer.begin()
    assert [step async for step in transfer.steps()] == [
        BEGUN,
        LayerProgress("x", LayerStage.PULLING),
        got(100),
        got(100, "y"),
        LayerProgress("x", LayerStage.PULLED),
        ENDED,
    ]
    await transfer.close()


async def test_failure_before_the_first_step() -> None:
    async def work(_: Report) -> None:
        raise Unavailable("nobody there")

    with pytest.raises(Unavailable, match="nobody there"):
        await RunningTransfer(work).begin()


async def test_failure_after_it_comes_last() -> None:
    async def work(report: Report) -> None:
        report(BEGUN)
        raise Unavailable("gone")

    transfer = RunningTransfer(work)
    await transfer.begin()
    steps = transfer.steps()
    assert await anext(steps) == BEGUN
    with pytest.raises(Unavailable, match="gone"):
        await anext(steps)
    await transfer.close()


async def test_closing_ends_the_work_and_waits_for_it() -> None:
    has_cleaned_up = False

    async def work(report: Report) -> None:
        nonlocal has_cleaned_up
        report(BEGUN)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            has_cleaned_up = True

    transfer = RunningTransfer(work)
    await transfer.begin()
    async with asyncio.timeout(5):
        await transfer.close()
        await transfer.close()
    assert has_cleaned_up


async def test_caller_that_goes_before_the_first_step() -> None:
    async def work(_: Report) -> None:
        await asyncio.Event().wait()

    transfer = RunningTransfer(work)
    beginning = asyncio.create_task(transfer.begin())
    await asyncio.sleep(0)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert transfer._task.cancelled()
