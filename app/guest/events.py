"""Events of the guest, each given out once however often the connection breaks."""

import asyncio
import logging
from dataclasses import dataclass

from app.core.errors import CorruptData, SlipwayError, Unavailable
from app.guest.fields import Fields
from app.guest.frames import encode_frame
from app.guest.protocol import FrameType, Tag

_log = logging.getLogger(__name__)

MAX_QUEUED_EVENTS = 1024


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """An EVENT: `number` is what to acknowledge, `kind` an EventKind or one we don't know."""

    number: int
    kind: int
    fields: Fields


class EventQueue:
    """Events received and acknowledgements to send. State only: `channel.py` moves the frames."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[GuestEvent | None] = asyncio.Queue()
        self._last_number = 0
        self._acknowledged = 0
        self._ack_due = False
        self._error: SlipwayError | None = None

    async def next(self) -> GuestEvent:
        """Wait, without a deadline, for the next event.

        Raises:
            Unavailable: The channel is closed and every event was given out.
        """
        if self._error is not None and self._queue.empty():
            raise self._error
        event = await self._queue.get()
        if event is None:
            assert self._error is not None  # noqa: S101 - None is queued after the error
            raise self._error
        return event

    def acknowledge(self, number: int) -> None:
        """All events up to `number` are recorded; the guest may forget them."""
        if number > self._acknowledged:
            self._acknowledged = number
            self._ack_due = True

    def begin_connection(self) -> None:
        """The last EVENT_ACK may have been lost: send it again."""
        self._ack_due = self._acknowledged > 0

    def take_frame(self) -> bytes | None:
        """Return the EVENT_ACK that is due, or None."""
        if not self._ack_due:
            return None
        self._ack_due = False
        return encode_frame(FrameType.EVENT_ACK, offset=self._acknowledged)

    def receive(self, number: int, payload: bytes) -> None:
        """Take an event; one that was here before is dropped.

        Raises:
            Unavailable: Nobody takes the events. The guest keeps this one and sends it again on
                the next connection.
        """
        if number <= self._last_number:
            return
        if self._queue.qsize() >= MAX_QUEUED_EVENTS:
            raise Unavailable(f"{MAX_QUEUED_EVENTS} events of the guest wait unread")
        try:
            fields = Fields(payload)
            event = GuestEvent(number, fields.number(Tag.EVENT_KIND), fields)
        except CorruptData as exc:
            # It would come again for ever; there is nothing in it for anybody.
            _log.warning("Event %d of the guest is not readable: %s", number, exc)
            self._last_number = number
            return
        self._last_number = number
        self._queue.put_nowait(event)

    def fail(self, error: SlipwayError) -> None:
        """End the consumer once it has taken what arrived."""
        if self._error is None:
            self._error = error
            self._queue.put_nowait(None)
