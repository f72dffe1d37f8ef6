"""Log lines as the browser gets them: arrays, not objects, to keep 100,000 of them small."""

from collections.abc import Sequence

from app.domain.log import LogLine, LogStream
from app.web.formats import iso_time

LINES_AT_ONCE = 2000
NS_PER_US = 1000
PackedLine = list[int | str]


def packed_lines(lines: Sequence[LogLine]) -> list[PackedLine]:
    """`[seq, microseconds since the epoch, flags, text]`; flag 1 is stderr, flag 2 is partial.

    Microseconds, since nanoseconds do not fit a JavaScript number.
    """
    return [
        [
            line.seq,
            line.time_ns // NS_PER_US,
            (line.stream is LogStream.STDERR) + 2 * line.partial,
            line.text,
        ]
        for line in lines
    ]


def plain_line(line: LogLine) -> bytes:
    """One line of a download: time, stream, and the bytes as they were written."""
    return f"{iso_time(line.time_ns)} {line.stream.value} ".encode() + line.data + b"\n"
