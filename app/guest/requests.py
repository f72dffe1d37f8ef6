"""Requests under way: each runs at most once in the guest, whatever happens to the connection.

State only: `channel.py` moves the frames.
"""

import asyncio
import os
from collections import deque
from dataclasses import dataclass

from app.core.errors import CorruptData, GuestFailed, SlipwayError
from app.guest.fields import Fields
from app.guest.frames import encode_message
from app.guest.protocol import FrameType, Op, Tag

# The agent keeps its last 64 answers. So few may be under way that, with as many given up before
# a reconnect, no answer that is still wanted can have left that cache.
MAX_IN_FLIGHT = 16


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request without an answer yet.

    Attributes:
        sent_frames: How many of `frames` went out on this connection.
        holds_slot: Whether it counts against MAX_IN_FLIGHT.
    """

    id: int
    op: Op
    frames: list[bytes]
    answer: "asyncio.Future[Fields]"
    sent_frames: int = 0
    holds_slot: bool = True
    is_abandoned: bool = False


class RequestTable:
    """The requests of one channel.

    Args:
        first_id: Ids count up from here; unique for the life of the VM.
    """

    def __init__(self, first_id: int) -> None:
        self._next_id = first_id
        self._pending: dict[int, PendingRequest] = {}
        self._queue: deque[PendingRequest] = deque()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def add(self, op: Op, payload: bytes) -> PendingRequest:
        """Queue a request once fewer than MAX_IN_FLIGHT are under way."""
        await self._slots.acquire()
        pending = PendingRequest(
            id=self._next_id,
            op=op,
            frames=encode_message(FrameType.REQUEST, payload, offset=self._next_id),
            answer=asyncio.get_running_loop().create_future(),
        )
        self._next_id += 1
        self._pending[pending.id] = pending
        self._queue.append(pending)
        return pending

    def abandon(self, pending: PendingRequest) -> None:
        """Nobody waits any more: never send it (again).

        If it went out it keeps its slot until it is answered or the connection ends, since the
        guest will keep an answer for it.
        """
        pending.is_abandoned = True
        if pending.sent_frames == 0:
            self._drop(pending)

    def begin_connection(self) -> None:
        """Queue again, in order, what was not answered on earlier connections."""
        for pending in [entry for entry in self._pending.values() if entry.is_abandoned]:
            self._drop(pending)
        for pending in self._pending.values():
            pending.sent_frames = 0
        self._queue = deque(self._pending.values())

    def take_frame(self) -> bytes | None:
        """Return the next frame to send, or None; fragments of one request follow each other."""
        while self._queue:
            pending = self._queue[0]
            if pending.id not in self._pending:
                self._queue.popleft()
                continue
            frame = pending.frames[pending.sent_frames]
            pending.sent_frames += 1
            if pending.sent_frames == len(pending.frames):
                self._queue.popleft()
            return frame
        return None

    def receive(self, request_id: int, payload: bytes) -> None:
        """Take a RESPONSE; one that nobody waits for is dropped."""
        pending = self._pending.get(request_id)
        if pending is None:
            return
        self._drop(pending)
        if pending.answer.done():
            return
        try:
            fields = Fields(payload)
            errno = fields.number(Tag.ERRNO)
            message = fields.text(Tag.MESSAGE, "")
        except CorruptData as exc:
            pending.answer.set_exception(exc)
            return
        if errno == 0:
            pending.answer.set_result(fields)
        else:
            pending.answer.set_exception(_failure(pending.op, errno, message))

    def fail_all(self, error: SlipwayError) -> None:
        """Give every waiter the error; later requests are refused by the channel."""
        for pending in list(self._pending.values()):
            self._drop(pending)
            if not pending.answer.done():
                pending.answer.set_exception(error)
        self._queue.clear()

    def _drop(self, pending: PendingRequest) -> None:
        self._pending.pop(pending.id, None)
        if pending.holds_slot:
            pending.holds_slot = False
            self._slots.release()


def _failure(op: Op, errno: int, message: str) -> GuestFailed:
    if not message:
        name = op.name.replace("_", " ").lower()
        reason = os.strerror(errno) if errno < 4096 else f"errno {errno}"
        message = f"The guest could not {name}: {reason}"
    return GuestFailed(message, errno=errno)
