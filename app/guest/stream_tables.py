"""All streams of one channel: which are open, what is to be sent for them next.

State only: `channel.py` moves the frames.
"""

from collections import deque
from collections.abc import Callable

from app.core.errors import Conflict, InvalidArgument, SlipwayError
from app.guest.frames import Frame
from app.guest.hello import HelloInfo, StreamInfo
from app.guest.protocol import FLAG_EOF, Direction
from app.guest.streams import (
    InputStream,
    OutputStream,
    decode_window,
    encode_ack,
)

_MAX_EARLY_ACKS = 1024
_MAX_STREAM_ID = (1 << 32) - 1


def _check_id(stream_id: int) -> None:
    if not 0 < stream_id <= _MAX_STREAM_ID:
        raise InvalidArgument(f"{stream_id} is no stream id: they go from 1 to {_MAX_STREAM_ID}")


def _streams(hello: HelloInfo, direction: Direction) -> dict[int, StreamInfo]:
    return {info.stream_id: info for info in hello.streams if info.direction is direction}


class OutputTable:
    """The output streams.

    Args:
        wake: Called when there is something to send.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._open: dict[int, OutputStream] = {}
        self._known: dict[int, StreamInfo] = {}  # as HELLO_ACK told
        self._acks_due: dict[int, OutputStream] = {}
        self._left: set[int] = set()  # closed before their end on this connection
        self._ends: dict[int, int | None] = {}  # acknowledged ends: sent after which ping token
        self._end_acks_due: dict[int, bytes] = {}

    def open(self, stream_id: int, *, offset: int, window_bytes: int) -> OutputStream:
        """Begin reading at `offset`.

        Raises:
            Conflict: It is being read, or was read to its end.
            InvalidArgument: The window or the id is out of range.
        """
        _check_id(stream_id)
        if stream_id in self._open or stream_id in self._ends:
            raise Conflict(f"Output stream {stream_id} is being read already")
        stream = OutputStream(
            stream_id, offset=offset, window_bytes=window_bytes, on_change=self._changed
        )
        self._open[stream_id] = stream
        info = self._known.get(stream_id)
        if info is not None:
            stream.begin_connection(info)
        self._changed(stream)
        return stream

    def needs_reconnect(self, stream_id: int) -> bool:
        """Whether the stream was left half-read on this connection.

        The guest goes back to our offset only on a new one.
        """
        return stream_id in self._left

    def _changed(self, stream: OutputStream) -> None:
        if stream.is_finished:
            self._open.pop(stream.stream_id, None)
            self._acks_due.pop(stream.stream_id, None)
            self._ends[stream.stream_id] = None
            self._end_acks_due[stream.stream_id] = stream.take_ack()
        else:
            if stream.is_closed:
                self._open.pop(stream.stream_id, None)
                self._left.add(stream.stream_id)
            self._acks_due[stream.stream_id] = stream
        self._wake()

    def begin_connection(self, hello: HelloInfo) -> None:
        """Go on with every open stream, and repeat the ends that the guest still waits for."""
        self._known = _streams(hello, Direction.OUTPUT)
        self._left.clear()
        for stream_id, stream in list(self._open.items()):
            stream.begin_connection(self._known.get(stream_id))
        self._acks_due = {
            stream_id: stream
            for stream_id, stream in self._open.items()
            if stream_id in self._known
        }
        self._ends = {stream_id: None for stream_id in self._ends if stream_id in self._known}
        self._end_acks_due = {
            stream_id: encode_ack(stream_id, self._known[stream_id].end, 0, eof=True)
            for stream_id in self._ends
        }

    def take_frame(self, ping_token: int) -> bytes | None:
        """Return the next ACK to send, or None; `ping_token` is the newest PING's."""
        if self._end_acks_due:
            stream_id = next(iter(self._end_acks_due))
            self._ends[stream_id] = ping_token
            return self._end_acks_due.pop(stream_id)
        if self._acks_due:
            return self._acks_due.pop(next(iter(self._acks_due))).take_ack()
        return None

    def awaits_pong(self) -> bool:
        """Whether a PING would tell that acknowledged ends have arrived."""
        return bool(self._ends)

    def confirm(self, pong_token: int) -> None:
        """The guest has read everything sent before that PING: forget the ends among it."""
        self._ends = {
            stream_id: token
            for stream_id, token in self._ends.items()
            if token is None or token >= pong_token
        }

    def receive(self, frame: Frame) -> None:
        """Take a DATA frame; one for a stream that nobody reads is dropped, the guest keeps it.

        Raises:
            CorruptData: It contradicts the stream.
        """
        stream = self._open.get(frame.stream)
        if stream is not None:
            stream.receive(frame.offset, frame.payload, eof=bool(frame.flags & FLAG_EOF))

    def fail_all(self, error: SlipwayError) -> None:
        """End every reader with the error."""
        for stream in self._open.values():
            stream.fail(error)


class InputTable:
    """The input streams.

    Args:
        wake: Called when there is something to send.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._open: dict[int, InputStream] = {}
        self._turns: deque[InputStream] = deque()
        self._known: dict[int, StreamInfo] = {}  # as HELLO_ACK told
        # The guest grants a new stream before it answers the request that makes it.
        self._early_acks: dict[int, Frame] = {}

    def open(self, stream_id: int) -> InputStream:
        """Begin writing to a stream; one that the guest does not know takes nothing.

        Raises:
            Conflict: It is being written already.
            InvalidArgument: The id is out of range.
        """
        _check_id(stream_id)
        if stream_id in self._open:
            raise Conflict(f"Input stream {stream_id} is being written already")
        stream = InputStream(stream_id, on_change=self._changed)
        self._open[stream_id] = stream
        self._turns.append(stream)
        early = self._early_acks.pop(stream_id, None)
        info = self._known.get(stream_id)
        if info is not None or early is None:
            stream.begin_connection(info)
        if early is not None and not stream.is_finished:
            self._apply(stream, early)
        return stream

    def _changed(self, stream: InputStream) -> None:
        if stream.is_finished and self._open.pop(stream.stream_id, None) is not None:
            self._turns.remove(stream)
        self._wake()

    def begin_connection(self, hello: HelloInfo) -> None:
        """Wait for the guest's ACK of each stream; those it has forgotten are finished."""
        self._known = _streams(hello, Direction.INPUT)
        self._early_acks.clear()
        for stream_id, stream in list(self._open.items()):
            stream.begin_connection(self._known.get(stream_id))

    def take_frame(self) -> bytes | None:
        """Return the next DATA frame, or None; the streams take turns."""
        for _ in range(len(self._turns)):
            stream = self._turns[0]
            self._turns.rotate(-1)
            frame = stream.take_data()
            if frame is not None:
                return frame
        return None

    def receive_ack(self, frame: Frame) -> None:
        """Take the guest's ACK; one for a stream not opened yet is kept.

        Raises:
            CorruptData: It is impossible.
        """
        stream = self._open.get(frame.stream)
        if stream is not None:
            self._apply(stream, frame)
            return
        self._early_acks.pop(frame.stream, None)
        self._early_acks[frame.stream] = frame
        if len(self._early_acks) > _MAX_EARLY_ACKS:
            del self._early_acks[next(iter(self._early_acks))]

    @staticmethod
    def _apply(stream: InputStream, frame: Frame) -> None:
        eof = bool(frame.flags & FLAG_EOF)
        stream.receive_ack(frame.offset, decode_window(frame.payload), eof=eof)

    def fail_all(self, error: SlipwayError) -> None:
        """End every writer with the error."""
        for stream in list(self._open.values()):
            stream.fail(error)
