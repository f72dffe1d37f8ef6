"""The tree operations, of the real agent as an ordinary process and of the fake."""

import asyncio
import errno
import itertools
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from app.core.errors import CorruptData, GuestFailed
from app.guest.agent import Agent
from app.guest.channel import GuestChannel
from app.guest.protocol import Op
from app.guest.tree_records import TreeData, TreeEntry
from app.guest.trees import TreeCall, TreeRequest, tree_call
from tests.contract.agent.host import CONTAINER, AgentUnderTest, container_spec

pytestmark = pytest.mark.timeout(120)
FILE, DIRECTORY, LINK = stat.S_IFREG | 0o640, stat.S_IFDIR | 0o750, stat.S_IFLNK | 0o777
ME = os.getuid(), os.getgid()
_streams = itertools.count(100)


class Lab:
    """A container that was created and never started, and calls about its files."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def call(self, op: Op, path: bytes, **more: object) -> AbstractAsyncContextManager[TreeCall]:
        stdin = next(_streams) if op is Op.WRITE_TREE else 0
        request = TreeRequest(op, CONTAINER, next(_streams), path, input_stream=stdin, **more)  # type: ignore[arg-type]
        return tree_call(self.agent, request)

    async def write(
        self, path: bytes, *records: TreeEntry | TreeData, keep_kinds: bool = False
    ) -> None:
        async with self.call(Op.WRITE_TREE, path, keep_kinds=keep_kinds) as call:
            for record in records:
                await call.write(record)
            await call.finish()

    async def read(
        self, path: bytes, op: Op = Op.READ_TREE, **more: object
    ) -> list[tuple[TreeEntry, bytes]]:
        found: list[tuple[TreeEntry, bytes]] = []
        async with self.call(op, path, **more) as call:
            while (record := await call.next()) is not None:
                if isinstance(record, TreeEntry):
                    found.append((record, b""))
                else:
                    entry, data = found[-1]
                    found[-1] = entry, data.ljust(record.offset, b"\0") + record.data
        return found


@pytest.fixture
async def lab(agent: AgentUnderTest, tmp_path: Path) -> AsyncGenerator[Lab]:
    (tmp_path / "root/tmp").mkdir(parents=True)
    channel = GuestChannel(agent.connect, name="test")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(channel.run())
        await channel.connected(10)
        typed = Agent(channel)
        await typed.create(container_spec("true"))
        yield Lab(typed)
        running.cancel()


def entry(name: bytes, mode: int = FILE, **more: object) -> TreeEntry:
    return TreeEntry(name, mode, *ME, mtime_ns=1_600_000_000_123_456_789, **more)  # type: ignore[arg-type]


async def test_what_is_written_is_read(lab: Lab) -> None:
    big = os.urandom(200_000)
    pieces = [TreeData(at, big[at : at + 65536]) for at in range(0, len(big), 65536)]
    await lab.write(
        b"/tmp",
        entry(b"a", DIRECTORY),
        entry(b"a/big", size_bytes=len(big)),
        *pieces,
        entry(b"a/link", LINK, link=b"big"),
        entry(b"implied/empty"),
    )
    found = await lab.read(b"/tmp")
    assert [(each.name, stat.S_IFMT(each.mode)) for each, _ in found] == [
        (b".", stat.S_IFDIR),
        (b"a", stat.S_IFDIR),
        (b"a/big", stat.S_IFREG),
        (b"a/link", stat.S_IFLNK),
        (b"implied", stat.S_IFDIR),
        (b"implied/empty", stat.S_IFREG),
    ]
    written, data = found[2]
    assert data == big
    assert (written.mode, written.uid, written.gid) == (FILE, *ME)
    assert written.mtime_ns == found[1][0].mtime_ns == 1_600_000_000_123_456_789
    assert found[1][0].mode == DIRECTORY
    assert found[3][0].link == b"big"


async def test_one_file_has_its_own_name_and_stat_says_the_same(lab: Lab) -> None:
    await lab.write(b"/tmp", entry(b"f", size_bytes=3), TreeData(0, b"abc"))
    [(read, data)] = await lab.read(b"/tmp/f")
    assert (read.name, data) == (b"f", b"abc")
    [(seen, _)] = await lab.read(b"/tmp/f", Op.STAT_PATH)
    assert (seen.name, seen.mode, seen.size_bytes) == (b"f", FILE, 3)


async def test_a_link_is_itself_unless_it_is_followed(lab: Lab) -> None:
    await lab.write(b"/tmp", entry(b"d/f"), entry(b"l", LINK, link=b"/tmp/d"))
    [(read, _)] = await lab.read(b"/tmp/l")
    assert stat.S_ISLNK(read.mode)
    followed = await lab.read(b"/tmp/l", follow=True)
    assert [each.name for each, _ in followed] == [b".", b"f"]
    inside = await lab.read(b"/tmp/l/f")
    assert [each.name for each, _ in inside] == [b"f"]


@pytest.mark.parametrize("target", [b"/etc", b"../../../../etc", b"/../etc"])
async def test_a_link_leads_nowhere_out_of_the_root(
    lab: Lab, target: bytes, tmp_path: Path
) -> None:
    (tmp_path / "root/etc").mkdir()
    await lab.write(b"/tmp", entry(b"l", LINK, link=target))
    await lab.write(b"/tmp", entry(b"l/planted", size_bytes=1), TreeData(0, b"x"))
    await lab.write(b"/tmp/l", entry(b"too", size_bytes=1), TreeData(0, b"y"))
    assert not os.path.exists("/etc/planted")  # noqa: ASYNC240, PTH110 - a glance
    found = await lab.read(b"/etc")
    assert {b"planted", b"too"} <= {each.name for each, _ in found}


@pytest.mark.parametrize("path", [b"/nope", b"/tmp/nope", b"/nope/x"])
async def test_a_missing_path_is_enoent(lab: Lab, path: bytes) -> None:
    for op in (Op.READ_TREE, Op.STAT_PATH, Op.WRITE_TREE):
        work = lab.write(path, entry(b"f")) if op is Op.WRITE_TREE else lab.read(path, op)
        with pytest.raises(GuestFailed) as caught:
            await work
        assert caught.value.errno == errno.ENOENT


async def test_kinds_are_kept_when_asked(lab: Lab) -> None:
    await lab.write(b"/tmp", entry(b"d", DIRECTORY), entry(b"f"))
    with pytest.raises(GuestFailed, match='cannot overwrite directory "/tmp/d" with non-dir'):
        await lab.write(b"/tmp", entry(b"d"), keep_kinds=True)
    with pytest.raises(GuestFailed, match='cannot overwrite non-directory "/tmp/f" with dir'):
        await lab.write(b"/tmp", entry(b"f", DIRECTORY), keep_kinds=True)
    await lab.write(b"/tmp", entry(b"d"), entry(b"f", DIRECTORY))
    kinds = {each.name: stat.S_IFMT(each.mode) for each, _ in await lab.read(b"/tmp")}
    assert kinds[b"d"] == stat.S_IFREG
    assert kinds[b"f"] == stat.S_IFDIR


async def test_writing_into_a_file_is_refused(lab: Lab) -> None:
    await lab.write(b"/tmp", entry(b"f"))
    with pytest.raises(GuestFailed, match="not a directory"):
        await lab.write(b"/tmp/f", entry(b"g"))


async def test_entries_that_are_cut_off_are_told(lab: Lab) -> None:
    async with lab.call(Op.WRITE_TREE, b"/tmp") as call:
        await call.write(entry(b"f"))
        assert call._stdin is not None
        call._stdin.write_eof()
        with pytest.raises(GuestFailed, match="cut off"):
            await call._until_end()


async def test_a_call_that_is_left_early_leaves_nothing(lab: Lab) -> None:
    big = 4 << 20
    pieces = [TreeData(at, b"x" * 65536) for at in range(0, big, 65536)]
    await lab.write(b"/tmp", entry(b"big", size_bytes=big), *pieces)
    async with lab.call(Op.READ_TREE, b"/tmp") as call:
        assert await call.next() is not None
    async with lab.call(Op.WRITE_TREE, b"/tmp") as call:
        await call.write(entry(b"half"))
    [(seen, _)] = await lab.read(b"/tmp/big", Op.STAT_PATH)
    assert seen.size_bytes == big


async def test_a_guest_that_answers_a_write_with_files_is_corrupt(lab: Lab) -> None:
    async with lab.call(Op.READ_TREE, b"/tmp") as call:
        with pytest.raises(CorruptData):
            await call._until_end()
