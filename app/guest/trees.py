"""The tree operations as calls: files of a container, read and written as records."""

import asyncio
import contextlib
import errno
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.errors import (
    Conflict,
    CorruptData,
    DeadlineExceeded,
    GuestFailed,
    SlipwayError,
    Unavailable,
)
from app.guest.agent import Agent
from app.guest.fields import FieldValue
from app.guest.protocol import MAX_TREE_DATA_BYTES, Op, Tag, TreeView
from app.guest.records import RecordDecoder
from app.guest.streams import InputStream, OutputStream
from app.guest.tree_records import (
    TreeData,
    TreeDecoder,
    TreeEnd,
    TreeEntry,
    TreeRecord,
    encode_tree_record,
)

BEGIN_TIMEOUT_S = 15.0
# The longest that a guest may be busy between two records: a large file that is all hole, say.
RECORD_TIMEOUT_S = 120.0
ABANDON_TIMEOUT_S = 10.0
WRITE_BYTES = MAX_TREE_DATA_BYTES
_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """What is wanted of a container's files.

    Attributes:
        path: Absolute in the container.
        view: Whose eyes the files are seen with.
        follow: The last part of the path too, if it is a link.
        keep_kinds: Put no directory in place of another kind of file, nor the other way round.
        layers: For LIST_CHANGES: serials of the layers' disks, lowest first.
        output_stream, input_stream: Ids that the VM never had; the input is WRITE_TREE's.
    """

    op: Op
    container_id: str
    output_stream: int
    path: bytes = b"/"
    view: TreeView = TreeView.CONTAINER
    follow: bool = False
    keep_kinds: bool = False
    layers: tuple[str, ...] = ()
    input_stream: int = 0


class TreeCall:
    """A tree operation under way.

    Attributes:
        has_ended: Its last record has been read: nothing is left to be stopped.
    """

    def __init__(self, output: OutputStream, stdin: InputStream | None) -> None:
        self._output = output
        self._stdin = stdin
        self._records = RecordDecoder(0)
        self._decoder = TreeDecoder()
        self._ready: deque[TreeRecord] = deque()
        self.has_ended = False

    async def next(self) -> TreeEntry | TreeData | None:
        """The next entry or piece of content; None at the end.

        Raises:
            GuestFailed: The guest could not go on; its errno.
            CorruptData: It sent no tree.
            DeadlineExceeded: It says nothing.
            Unavailable: The VM is gone.
        """
        while not self._ready:
            await self._receive()
        record = self._ready.popleft()
        if not isinstance(record, TreeEnd):
            return record
        self._ready.appendleft(record)
        self.has_ended = True
        if record.errno:
            raise GuestFailed(record.message, errno=record.errno)
        return None

    async def _receive(self) -> None:
        try:
            async with asyncio.timeout(RECORD_TIMEOUT_S):
                chunk = await anext(self._output, None)
        except TimeoutError as error:
            raise DeadlineExceeded("The guest does not go on with the files") from error
        if chunk is None:
            raise CorruptData("The guest broke off in the middle of the files")
        for piece in self._records.feed(chunk.data):
            self._ready.extend(self._decoder.feed(piece.data))
        offset = chunk.end_offset if chunk.eof else self._records.record_offset
        self._output.acknowledge(offset, eof=chunk.eof)
        if chunk.eof and not self._ready:
            raise GuestFailed("The guest's work on the files was ended")

    async def write(self, record: TreeEntry | TreeData) -> None:
        """Give WRITE_TREE a record; waits while the guest is behind.

        Raises:
            GuestFailed: The guest could not go on; its errno.
        """
        assert self._stdin is not None  # noqa: S101 - by the operation
        try:
            async with asyncio.timeout(RECORD_TIMEOUT_S):
                await self._stdin.write(encode_tree_record(record))
        except TimeoutError as error:
            raise DeadlineExceeded("The guest does not go on with the files") from error
        except Conflict:  # it has ended: why, it says itself
            await self._until_end()
            raise CorruptData("The guest took no more files and named no reason") from None

    async def finish(self) -> None:
        """Tell WRITE_TREE that it has all, and wait until it is through.

        Raises:
            GuestFailed: The guest could not go on; its errno.
        """
        assert self._stdin is not None  # noqa: S101 - by the operation
        with contextlib.suppress(Conflict):
            await self._stdin.write(encode_tree_record(TreeEnd()))
        self._stdin.write_eof()
        await self._until_end()

    async def _until_end(self) -> None:
        if await self.next() is not None:
            raise CorruptData("The guest answered files with files")

    async def abandon(self) -> None:
        """Take and drop what is still to come, so that both sides forget the stream."""
        async for chunk in self._output:
            self._output.acknowledge(chunk.end_offset, eof=chunk.eof)


@asynccontextmanager
async def tree_call(agent: Agent, request: TreeRequest) -> AsyncIterator[TreeCall]:
    """Run a tree operation; leaving the context before its end stops it.

    Raises:
        GuestFailed: The guest refused it.
        Unavailable: The container has just gone from the guest.
    """
    process_id = f"tree-{secrets.token_hex(8)}"
    fields: list[tuple[Tag, FieldValue]] = [
        (Tag.CONTAINER, request.container_id),
        (Tag.PROCESS_ID, process_id),
        (Tag.OUTPUT_STREAM, request.output_stream),
        (Tag.PATH, request.path),
        (Tag.VIEW, int(request.view)),
        (Tag.FOLLOW, request.follow),
        (Tag.KEEP_KINDS, request.keep_kinds),
        *((Tag.LAYER, serial) for serial in request.layers),
    ]
    if request.input_stream:
        fields.append((Tag.STDIN_STREAM, request.input_stream))
    try:
        await agent.channel.request(request.op, fields, timeout_s=BEGIN_TIMEOUT_S)
    except GuestFailed as error:
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            raise Unavailable(
                "The container's files can't be reached just now: it is starting or ending",
                advice="Try again in a moment.",
            ) from error
        raise
    output = agent.channel.open_output(request.output_stream)
    stdin = agent.channel.open_input(request.input_stream) if request.input_stream else None
    call = TreeCall(output, stdin)
    try:
        yield call
    finally:
        # Also after an exception or cancellation: a process that nobody reads stays for ever.
        with contextlib.suppress(SlipwayError, TimeoutError):
            async with asyncio.timeout(ABANDON_TIMEOUT_S):
                if not output.is_finished:
                    with contextlib.suppress(GuestFailed):
                        if not call.has_ended:
                            await agent.signal(
                                request.container_id, _SIGKILL, process_id=process_id
                            )
                    await call.abandon()
        output.close()
