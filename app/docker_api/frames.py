"""Frames of a multiplexed stream: which of stdout and stderr, how long, then the bytes."""

import struct

from app.domain.log import LogStream

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_NUMBERS = {LogStream.STDOUT: 1, LogStream.STDERR: 2}


def frame(stream: LogStream, data: bytes) -> bytes:
    """One write of the process (moby, pkg/stdcopy)."""
    return struct.pack(">BxxxL", _NUMBERS[stream], len(data)) + data
