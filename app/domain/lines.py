"""From pieces of output to lines, and how far that has come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from app.domain.log import LINE_LIMIT_BYTES, LogStream

NEWLINE = b"\n"
OutputPiece = tuple[int, LogStream, bytes]
"""When the agent read it (nanoseconds since the epoch), where from, any number of bytes."""


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line that the store has not numbered yet; fields as in LogLine."""

    time_ns: int
    stream: LogStream
    data: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class PendingLine:
    """The beginning of a line whose newline has not come.

    Attributes:
        time_ns: Of the piece in which the line began.
        data: 1 to LINE_LIMIT_BYTES bytes.
    """

    time_ns: int
    data: bytes


Pending = Mapping[LogStream, PendingLine]
NOTHING_PENDING: Pending = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LogCursor:
    """How much of a source's output the store holds, as lines and as pending beginnings.

    Attributes:
        source: Names one output stream of one VM; never used for another.
        offset: Bytes of that stream that are safe; the next piece to feed begins here.
        pending: For a LineAssembler that goes on from `offset`.
    """

    source: str
    offset: int = 0
    pending: Pending = field(default_factory=dict)


class LineAssembler:
    """Cuts the output of one run into lines, stdout and stderr apart.

    A line has the time of the piece in which it began. A line longer than LINE_LIMIT_BYTES becomes
    several entries with that time, all but the last `partial`, as Docker's json-file does. The
    bytes of all entries, newlines put back, are the bytes fed.

    Args:
        pending: What an earlier assembler had not finished.
    """

    def __init__(self, pending: Pending = NOTHING_PENDING) -> None:
        self._pending: dict[LogStream, PendingLine] = dict(pending)

    @property
    def pending(self) -> Pending:
        """A copy of the unfinished lines, at most one for each stream."""
        return dict(self._pending)

    def feed(self, pieces: Iterable[OutputPiece]) -> list[NewLine]:
        """Take pieces in the order of their stream; return the lines that they finish."""
        lines: list[NewLine] = []
        for time_ns, stream, data in pieces:
            *ended, rest = data.split(NEWLINE)
            for text in ended:
                self._extend(lines, time_ns, stream, text)
                lines.append(self._end(time_ns, stream))
            self._extend(lines, time_ns, stream, rest)
        return lines

    def flush(self) -> list[NewLine]:
        """Return what is pending as lines, oldest first: the stream has ended without a newline."""
        began = sorted(self._pending.items(), key=lambda item: item[1].time_ns)
        self._pending.clear()
        return [NewLine(pending.time_ns, stream, pending.data) for stream, pending in began]

    def _extend(self, lines: list[NewLine], time_ns: int, stream: LogStream, text: bytes) -> None:
        """Add bytes without a newline to the pending line; cut off its front what no longer fits.

        A line of exactly the limit stays whole until more of it comes.
        """
        if not text:
            return
        pending = self._pending.get(stream)
        if pending is not None:
            time_ns, text = pending.time_ns, pending.data + text
        while len(text) > LINE_LIMIT_BYTES:
            lines.append(NewLine(time_ns, stream, text[:LINE_LIMIT_BYTES], partial=True))
            text = text[LINE_LIMIT_BYTES:]
        self._pending[stream] = PendingLine(time_ns, text)

    def _end(self, time_ns: int, stream: LogStream) -> NewLine:
        pending = self._pending.pop(stream, None)
        if pending is None:
            return NewLine(time_ns, stream, b"")
        return NewLine(pending.time_ns, stream, pending.data)
