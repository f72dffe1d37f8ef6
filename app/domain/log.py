"""Log lines as everybody sees them."""

from dataclasses import dataclass
from enum import StrEnum

LINE_LIMIT_BYTES = 16 * 1024  # Docker's json-file splits longer lines with a partial flag


class LogStream(StrEnum):
    """Where a line was written."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One stored line.

    Attributes:
        seq: Position in the container's log, from 1, without gaps or repeats, over all its starts.
        time_ns: Nanoseconds since the epoch, UTC, by the guest's clock, when the agent read it.
        stream: stdout or stderr; a container with a tty has stdout only.
        data: The bytes without the newline; any bytes, at most LINE_LIMIT_BYTES.
        partial: True if the line went on in the next entry of the same stream.
    """

    seq: int
    time_ns: int
    stream: LogStream
    data: bytes
    partial: bool = False

    @property
    def text(self) -> str:
        """The line for display: invalid UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")
