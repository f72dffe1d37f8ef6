"""A follower of the real store, over the change of a day."""

import asyncio

from app.domain.lines import LogCursor, NewLine
from app.logs.follow import LogBatch, LogEnd, LogHub
from tests.unit.logs.lab import OUT, Lab


async def test_follower_of_the_real_store(lab: Lab) -> None:
    hub = LogHub(lab.store)
    got: list[bytes] = []

    async def pump() -> None:
        hub.begin("one")
        for offset in range(1, 301):
            lines = [NewLine(offset, OUT, b"%d" % offset)]
            hub.publish("one", await lab.store.append("one", lines, LogCursor("vm", offset)))
            if offset == 150:
                lab.next_day()
        hub.end("one")

    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        tasks.create_task(pump())
        await asyncio.sleep(0)
        async with hub.follow("one", after_seq=0, until_end=True) as follower:
            while not isinstance(item := await follower.next(), LogEnd):
                assert isinstance(item, LogBatch)
                got.extend(found.data for found in item.lines)
    assert got == [b"%d" % number for number in range(1, 301)]
