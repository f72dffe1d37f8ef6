"""/api/v1/containers/{reference}/logs: history, and following as a stream."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api.identity import Initiator, ServicesOf
from app.api.lines import NDJSON, ndjson
from app.api.problems import responses
from app.api.schemas import LARGEST_NUMBER
from app.domain.log import LogLine, LogStream

router = APIRouter(prefix="/containers", tags=["logs"])


class LogLineView(BaseModel):
    """A log line. `base64` holds the exact bytes where they are no valid UTF-8."""

    seq: int
    time: datetime
    time_ns: int
    stream: LogStream
    text: str
    partial: bool = Field(description="The line goes on in the next entry of its stream.")
    base64: str | None = None

    @classmethod
    def of(cls, line: LogLine) -> Self:
        """From the store's line."""
        text = line.text
        exact = None
        if "\ufffd" in text and text.encode() != line.data:
            exact = b64encode(line.data).decode()
        return cls(
            seq=line.seq,
            time=datetime.fromtimestamp(line.time_ns / 1e9, UTC),
            time_ns=line.time_ns,
            stream=line.stream,
            text=text,
            partial=line.partial,
            base64=exact,
        )


Reference = Annotated[
    str, Path(description="Id, unique prefix of an id, or name.", examples=["ticker"])
]


class GapView(BaseModel):
    """Lines that a slow reader was not sent; they are stored: ask for them by `after_seq`."""

    gap_from_seq: int
    gap_to_seq: int = Field(description="The last one missed.")


@router.get(
    "/{reference}/logs",
    summary="Read or follow a container's log",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                NDJSON: {
                    "example": '{"seq":1,"time":"2026-11-24T09:00:00Z",'
                    '"time_ns":1795510800000000000,'
                    '"stream":"stdout","text":"hello","partial":false}\n'
                },
                "text/plain": {"example": "hello\n"},
            }
        },
        **responses(400, 404, 422),
    },
)
async def read_logs(
    reference: Reference,
    services: ServicesOf,
    _: Initiator,
    tail: Annotated[
        int | None, Query(ge=0, le=1_000_000, description="Only the newest so many.")
    ] = None,
    after_seq: Annotated[
        int, Query(ge=0, le=LARGEST_NUMBER, description="Only lines after this number.")
    ] = 0,
    follow: Annotated[bool, Query(description="Go on until the container has ended.")] = False,
    format: Annotated[Literal["json", "text"], Query()] = "json",
) -> StreamingResponse:
    """Lines in order, each once. To resume, pass the last `seq` seen as `after_seq`."""
    container = await services.containers.get(reference)
    if tail is not None:
        last_seq = await services.logs.last_seq(container.id)
        after_seq = max(after_seq, last_seq - tail)
    render = _render_text if format == "text" else _render_json
    read = services.logs.follow_whole if follow and container.is_live else services.logs.pages
    pages = read(container.id, after_seq=after_seq)
    media_type = "text/plain; charset=utf-8" if format == "text" else NDJSON
    return StreamingResponse(
        (b"".join(map(render, lines)) async for lines in pages), media_type=media_type
    )


def _render_json(line: LogLine) -> bytes:
    return ndjson(LogLineView.of(line))


def _render_text(line: LogLine) -> bytes:
    return line.data if line.partial else line.data + b"\n"
