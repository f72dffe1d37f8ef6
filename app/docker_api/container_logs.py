"""GET /containers/{id}/logs: history and following, as frames or raw."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.core.errors import InvalidArgument, Unsupported
from app.docker_api.access import ServicesOf
from app.docker_api.frames import MULTIPLEXED_STREAM, RAW_STREAM, frame
from app.docker_api.parameters import Flag
from app.docker_api.times import log_time, parse_time_ns
from app.docker_api.versions import ApiVersion, AskedVersion
from app.domain.container import Container
from app.domain.container_options import NO_LOG_DRIVER
from app.domain.log import LogLine, LogStream
from app.services.bundle import Services

router = APIRouter(prefix="/containers")

MULTIPLEXED_SINCE = ApiVersion(1, 42)


@dataclass(frozen=True)
class Wanted:
    """Which lines, and how.

    Attributes:
        since_ns, until_ns: Nanoseconds since the epoch; None: no bound.
    """

    streams: frozenset[LogStream]
    since_ns: int | None
    until_ns: int | None
    timestamps: bool
    is_framed: bool

    def render(self, lines: Iterable[LogLine]) -> bytes:
        """The lines that are wanted, as bytes for the client."""
        return b"".join(self._line(line) for line in lines if self._has(line))

    def is_over(self, lines: Iterable[LogLine]) -> bool:
        """Whether nothing that is wanted follows."""
        return self.until_ns is not None and any(line.time_ns > self.until_ns for line in lines)

    def _has(self, line: LogLine) -> bool:
        return (
            line.stream in self.streams
            and (self.since_ns is None or line.time_ns >= self.since_ns)
            and (self.until_ns is None or line.time_ns <= self.until_ns)
        )

    def _line(self, line: LogLine) -> bytes:
        data = line.data if line.partial else line.data + b"\n"
        if self.timestamps:
            data = f"{log_time(line.time_ns)} ".encode() + data
        return frame(line.stream, data) if self.is_framed else data


@router.get("/{reference}/logs")
async def read_logs(
    reference: str,
    services: ServicesOf,
    version: AskedVersion,
    follow: Flag = False,
    stdout: Flag = False,
    stderr: Flag = False,
    since: Annotated[str, Query()] = "",
    until: Annotated[str, Query()] = "",
    timestamps: Flag = False,
    tail: Annotated[str, Query()] = "",
) -> StreamingResponse:
    """Lines in the order in which they were written."""
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    container = await services.containers.get(reference)
    if container.config.log_driver == NO_LOG_DRIVER:
        raise Unsupported("configured logging driver does not support reading")
    streams = {LogStream.STDOUT: stdout, LogStream.STDERR: stderr}
    is_framed = not container.config.tty
    wanted = Wanted(
        streams=frozenset(stream for stream, is_wanted in streams.items() if is_wanted),
        since_ns=_bound_ns("since", since),
        until_ns=_bound_ns("until", until),
        timestamps=timestamps,
        is_framed=is_framed,
    )
    after_seq = await _after_seq(services, container, tail)
    read = services.logs.follow_whole if follow and container.is_live else services.logs.pages
    is_marked = is_framed and version >= MULTIPLEXED_SINCE
    return StreamingResponse(
        _render(read(container.id, after_seq=after_seq), wanted),
        headers={"Content-Type": MULTIPLEXED_STREAM if is_marked else RAW_STREAM},
    )


async def _after_seq(services: Services, container: Container, tail: str) -> int:
    """Docker shows everything for a `tail` that is no number."""
    if not tail.isdecimal():
        return 0
    return max(await services.logs.last_seq(container.id) - int(tail), 0)


def _bound_ns(name: str, text: str) -> int | None:
    """Zero is no bound either."""
    return None if text == "0" else parse_time_ns(name, text)


async def _render(
    pages: AsyncGenerator[Sequence[LogLine], None], wanted: Wanted
) -> AsyncIterator[bytes]:
    yield b""  # headers go out before the first line comes
    async with aclosing(pages):
        async for lines in pages:
            yield wanted.render(lines)
            if wanted.is_over(lines):
                return
