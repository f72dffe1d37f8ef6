"""Pull and push as streams of JSON lines, in the form that the docker CLI draws."""

from collections.abc import AsyncIterator, Callable

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import SlipwayError
from app.docker_api.errors import text_of
from app.docker_api.progress import error_line, line, step
from app.domain.registry import (
    LayerProgress,
    LayerStage,
    Transfer,
    TransferEnded,
    TransferStarted,
)
from app.services.transfers import RunningTransfer

Draw = Callable[[Transfer], bytes]


class TransferResponse(StreamingResponse):
    """Lines of a pull or push; when the client goes, it ends.

    Args:
        transfer: Has begun; errors from here on are lines.
        draw: A step as lines.
    """

    def __init__(self, transfer: RunningTransfer, draw: Draw) -> None:
        super().__init__(_lines(transfer, draw), media_type="application/json")
        self._transfer = transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._transfer.close()


async def _lines(transfer: RunningTransfer, draw: Draw) -> AsyncIterator[bytes]:
    try:
        async for each in transfer.steps():
            yield draw(each)
    except SlipwayError as error:
        yield error_line(text_of(error))


def draw_pull(each: Transfer) -> bytes:
    """A step of a pull."""
    match each:
        case TransferStarted(reference):
            place = reference.tag or reference.digest
            return line(status=f"Pulling from {reference.path}", id=place)
        case LayerProgress():
            return _layer(each)
        case TransferEnded(reference, digest, _, is_news):
            status = "Downloaded newer image" if is_news else "Image is up to date"
            return line(status=f"Digest: {digest}") + line(
                status=f"Status: {status} for {reference.familiar}"
            )


def draw_push(each: Transfer) -> bytes:
    """A step of a push."""
    match each:
        case TransferStarted(reference):
            return line(status=f"The push refers to repository [{reference.name}]")
        case LayerProgress():
            return _layer(each)
        case TransferEnded(reference, digest, size_bytes):
            tag = reference.tag or ""
            told = line(status=f"{tag}: digest: {digest} size: {size_bytes}")
            aux = {"Tag": tag, "Digest": str(digest), "Size": size_bytes}
            return told + line(progressDetail={}, aux=aux)


def _layer(each: LayerProgress) -> bytes:
    if each.stage is LayerStage.MOUNTED:
        return line(status=f"{each.stage} {each.source}", progressDetail={}, id=each.layer)
    if each.total_bytes:
        return step(each.stage, each.layer, each.done_bytes, each.total_bytes)
    return line(status=each.stage.value, progressDetail={}, id=each.layer)


def reference_of(name: str, tag: str) -> str:
    """Name and tag, which may be a digest, as one reference."""
    if not tag:
        return name
    return f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"


def wants_all_tags(name: str, tag: str) -> bool:
    """Whether a request that names no tag means all of them."""
    return not tag and "@" not in name and ":" not in name.rpartition("/")[2]
