"""Who is attached: room, ends, junctions, delivery."""

import asyncio
from typing import Any

import pytest

from app.domain.lines import PendingLine
from app.domain.log import LogStream
from app.services import attachments
from app.services.attachments import BUFFER_BYTES, AttachHub, Attachment, OutputPiece, OutputTap

DEADLINE_S = 5.0
BIG = OutputPiece(LogStream.STDOUT, b"x" * (BUFFER_BYTES + 1))
SMALL = OutputPiece(LogStream.STDERR, b"y")


def never() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def make_tap(hub: AttachHub, ended: "asyncio.Future[Any] | None" = None) -> OutputTap:
    return OutputTap(hub, "one", last_seq=7, writer_ended=ended or never())


async def test_a_reader_gets_all_in_order_until_the_end() -> None:
    attachment = Attachment()
    attachment.offer([SMALL, BIG])
    attachment.offer([SMALL])
    attachment.end()
    attachment.offer([BIG])  # of the next run
    assert [piece async for piece in attachment] == [SMALL, BIG, SMALL]
    assert attachment.finished.is_set()


async def test_a_full_reader_holds_the_writer_until_it_takes() -> None:
    attachment = Attachment()
    attachment.offer([BIG, SMALL])
    waiting = asyncio.create_task(attachment.made_room(never()))
    await settle()
    assert not waiting.done()
    assert await anext(attachment) is BIG
    async with asyncio.timeout(DEADLINE_S):
        await waiting


@pytest.mark.parametrize("how", ["closed", "writer ended"])
async def test_nobody_is_held_for_a_reader_that_has_gone_or_a_writer_that_has(how: str) -> None:
    attachment, ended = Attachment(), never()
    attachment.offer([BIG])
    waiting = asyncio.create_task(attachment.made_room(ended))
    await settle()
    assert not waiting.done()
    if how == "closed":
        attachment.close()
    else:
        ended.set_result(None)
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    attachment.end()
    assert [piece async for piece in attachment] == ([] if how == "closed" else [BIG])


async def test_one_full_reader_is_enough_to_hold_the_tap() -> None:
    hub = AttachHub()
    tap = make_tap(hub)
    with hub.attach("one") as slow, hub.attach("one") as quick, hub.attach("two") as other:
        tap.begin({})
        tap.offer([BIG], {})
        assert await anext(quick) is BIG
        waiting = asyncio.create_task(tap.made_room())
        await settle()
        assert not waiting.done()
        assert await anext(slow) is BIG
        async with asyncio.timeout(DEADLINE_S):
            await waiting
        tap.end()
        assert [piece async for piece in slow] == []
        hub.end("two")
        assert [piece async for piece in other] == []
    assert hub.taps == {}


async def test_a_junction_in_the_midst_of_a_commit_waits_for_its_number() -> None:
    hub = AttachHub()
    tap = make_tap(hub)
    pending = {LogStream.STDOUT: PendingLine(1, b"begun")}
    tap.begin({})
    assert await tap.junction().last_seq == 7
    tap.offer([SMALL], pending)
    junction = tap.junction()
    assert not junction.last_seq.done()
    tap.committed(9)
    tap.offer([SMALL], {})
    tap.committed(12)
    assert (await junction.last_seq, junction.pending) == (9, pending)
    assert await tap.junction().last_seq == 12


async def test_delivered_waits_for_readers_of_the_run_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = AttachHub()
    with hub.attach("one") as attachment:
        attachment.offer([SMALL])
        hub.end("one")
        waiting = asyncio.create_task(hub.delivered("one"))
        await settle()
        assert not waiting.done()
        assert await anext(attachment) is SMALL
        await settle()
        assert not waiting.done()  # it is being sent
        with pytest.raises(StopAsyncIteration):
            await anext(attachment)
        async with asyncio.timeout(DEADLINE_S):
            await waiting
    with hub.attach("one") as stuck:
        stuck.offer([SMALL])
        hub.end("one")
        monkeypatch.setattr(attachments, "DELIVERY_TIMEOUT_S", 0.01)
        async with asyncio.timeout(DEADLINE_S):
            await hub.delivered("one")


async def test_who_comes_before_the_start_gets_the_input_when_there_is_one() -> None:
    hub = AttachHub()
    waiting = asyncio.create_task(hub.input_of("one"))
    await settle()
    stream: Any = object()
    hub.open_input("two", object())  # type: ignore[arg-type]
    await settle()
    assert not waiting.done()
    hub.open_input("one", stream)
    async with asyncio.timeout(DEADLINE_S):
        assert await waiting is stream
        assert await hub.input_of("one") is stream
