"""Whatever is published, stored, taken or ended: a follower hears of every line once, in order."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.logs import follow as follow_module
from app.logs.follow import LogBatch, LogEnd, LogGap, LogHub, LogItem
from tests.unit.logs.follow_lab import History, poll

actions = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 40)),
        st.tuples(st.just("commit only"), st.integers(1, 5)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("end"), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(actions, st.integers(0, 30))
def test_items_cover_every_line_once_in_order(taken: list[tuple[str, int]], after_seq: int) -> None:
    asyncio.run(follow_actions(taken, after_seq))


async def follow_actions(taken: Sequence[tuple[str, int]], after_seq: int) -> None:
    history = History()
    hub = LogHub(history)
    history.store(20)
    published = history.newest
    expected = min(after_seq, 20) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow_module, "QUEUE_LINES", 30)
        patch.setattr(follow_module, "BATCH_LINES", 7)
        async with hub.follow("one", after_seq=after_seq) as follower:
            for action, count in [*taken, ("publish", 1), ("take", 10_000)]:
                if action == "publish":
                    hub.publish("one", history.store(count))
                    published = history.newest
                elif action == "commit only":
                    history.store(count)
                elif action == "end":
                    hub.end("one")
                    published = history.newest
                else:
                    for _ in range(count):
                        item = await poll(follower)
                        if item is None:
                            assert expected > published
                            break
                        expected = check(item, expected)
    assert expected == history.newest + 1


def check(item: LogItem, expected: int) -> int:
    """Check that an item begins with the expected number; return the one after it."""
    match item:
        case LogBatch(lines):
            assert [found.seq for found in lines] == list(range(expected, expected + len(lines)))
            assert 0 < len(lines) <= 7
            return expected + len(lines)
        case LogGap(from_seq, to_seq):
            assert from_seq == expected <= to_seq
            return to_seq + 1
        case LogEnd():
            return expected
