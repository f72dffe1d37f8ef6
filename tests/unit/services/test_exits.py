"""Who waits for a container's end is told of the right one."""

from dataclasses import replace

import pytest

from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.services.exits import ExitBoard, WaitCondition, is_met

MADE = Container(
    id="a", name="one", image_id="i", config=ContainerConfig(image="i"), created_at_ns=0
)
S = ContainerState
NEXT, NOT_RUNNING, REMOVED = (
    WaitCondition.NEXT_EXIT,
    WaitCondition.NOT_RUNNING,
    WaitCondition.REMOVED,
)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (S.RUNNING, S.EXITED, {NEXT, NOT_RUNNING}),
        (S.STOPPING, S.EXITED, {NEXT, NOT_RUNNING}),
        (S.PAUSED, S.RESTARTING, {NEXT, NOT_RUNNING}),
        (S.STARTING, S.CREATED, {NOT_RUNNING}),  # the start failed: nothing has exited
        (S.RESTARTING, S.EXITED, {NOT_RUNNING}),  # it was stopped between two runs
        (S.STARTING, S.RUNNING, set()),
        (S.RUNNING, S.STOPPING, set()),
        (S.EXITED, S.REMOVING, set()),
    ],
)
async def test_changes(
    before: ContainerState, after: ContainerState, told: set[WaitCondition]
) -> None:
    board = ExitBoard()
    heard = set()
    for condition in WaitCondition:
        async with board.expect(MADE, condition) as future:
            board.changed(replace(MADE, state=before), replace(MADE, state=after, exit_code=7))
            if future.done():
                assert future.result() == 7
                heard.add(condition)
    assert heard == told


async def test_a_removal_tells_everybody() -> None:
    board = ExitBoard()
    async with board.expect(MADE, REMOVED) as removed, board.expect(MADE, NEXT) as next_exit:
        board.removed(replace(MADE, exit_code=3))
        assert (await removed, await next_exit) == (3, 3)


async def test_others_are_not_told_and_nothing_is_kept() -> None:
    board = ExitBoard()
    async with board.expect(MADE, NEXT) as future:
        board.changed(replace(MADE, id="b", state=S.RUNNING), replace(MADE, id="b", state=S.EXITED))
        assert not future.done()
    board.changed(replace(MADE, state=S.RUNNING), replace(MADE, state=S.EXITED))
    assert not future.done()


@pytest.mark.parametrize(
    ("state", "condition", "met"),
    [
        (S.CREATED, NOT_RUNNING, True),
        (S.EXITED, NOT_RUNNING, True),
        (S.RUNNING, NOT_RUNNING, False),
        (S.STARTING, NOT_RUNNING, False),
        (S.RESTARTING, NOT_RUNNING, False),
        (S.EXITED, NEXT, False),
        (S.EXITED, REMOVED, False),
    ],
)
def test_is_met(state: ContainerState, condition: WaitCondition, met: bool) -> None:
    assert is_met(replace(MADE, state=state), condition) is met
