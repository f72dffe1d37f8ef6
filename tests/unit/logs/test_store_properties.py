"""Whatever the batches, restarts and dates: complete, unique, in order."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.lines import LineAssembler, LogCursor
from app.domain.log import LogStream
from tests.unit.logs.lab import Lab, read_all

NAMES = st.sampled_from(["one", "two"])
texts = st.binary(max_size=40) | st.just(b"\n") | st.integers(0, 900).map(lambda n: b"x\n" * n)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.sampled_from(LogStream), texts),
        st.tuples(st.just("run ends"), NAMES),
        st.tuples(st.just("restart")),
        st.tuples(st.just("day"), st.integers(-2, 3)),
    ),
    max_size=30,
)


class Run:
    """What a pump does for one container, and what the container wrote."""

    def __init__(self) -> None:
        self.number = 0
        self.offset = 0
        self.output: list[dict[LogStream, bytes]] = [dict.fromkeys(LogStream, b"")]

    @property
    def source(self) -> str:
        return f"vm{self.number}"


class Model:
    def __init__(self, root: Path) -> None:
        self.lab = Lab(root)
        self.runs = {"one": Run(), "two": Run()}

    async def write(self, name: str, stream: LogStream, text: bytes) -> None:
        run = self.runs[name]
        run.output[-1][stream] += text
        cursor = await self.lab.store.cursor(name, run.source)
        assert cursor.offset == run.offset
        assembler = LineAssembler(cursor.pending)
        lines = assembler.feed([(1, stream, text)])
        run.offset += len(text)
        await self.lab.store.append(
            name, lines, LogCursor(run.source, run.offset, assembler.pending)
        )

    async def end(self, name: str) -> None:
        run = self.runs[name]
        assembler = LineAssembler((await self.lab.store.cursor(name, run.source)).pending)
        await self.lab.store.append(name, assembler.flush(), LogCursor(run.source, run.offset, {}))
        run.number, run.offset = run.number + 1, 0
        run.output.append(dict.fromkeys(LogStream, b""))

    async def check(self, name: str) -> None:
        stored = await read_all(self.lab.store, name)
        assert [line.seq for line in stored] == list(range(1, len(stored) + 1))
        assert len(stored) == self.lab.store.last_seq(name)
        for stream in LogStream:
            written = b"".join(
                text if text.endswith(b"\n") or not text else text + b"\n"
                for text in (output[stream] for output in self.runs[name].output)
            )
            of_stream = [line.data for line in stored if line.stream is stream]
            assert b"".join(data + b"\n" for data in of_stream) == written


async def follow_steps(root: Path, taken: list[tuple[object, ...]]) -> None:
    model = Model(root)
    await model.lab.open()
    try:
        for step in taken:
            match step:
                case ("write", str(name), LogStream() as stream, bytes(text)):
                    await model.write(name, stream, text)
                case ("run ends", str(name)):
                    await model.end(name)
                case ("restart",):
                    await model.lab.reopen()
                case ("day", int(days)):
                    model.lab.next_day(days)
                case _:
                    pytest.fail(f"unknown step {step}")
        for name in model.runs:
            await model.end(name)
            await model.check(name)
        assert model.lab.faults == []
    finally:
        await model.lab.store.close()


@settings(deadline=None, max_examples=60)
@given(steps)
def test_log_is_complete_unique_and_in_order(taken: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory() as root:
        asyncio.run(follow_steps(Path(root), taken))


@pytest.mark.parametrize("pages", [1, 7, 300])
async def test_pages_of_any_size_are_the_whole(lab: Lab, pages: int) -> None:
    cursor = LogCursor("vm")
    lines = LineAssembler().feed([(1, LogStream.STDOUT, b"a\n" * 700)])
    await lab.store.append("one", lines, cursor)
    lab.next_day()
    await lab.store.append("one", lines, cursor)
    found: list[int] = []
    while page := await lab.store.read("one", from_seq=len(found) + 1, limit=pages):
        assert len(page) <= pages
        found.extend(line.seq for line in page)
    assert found == list(range(1, 1401))
