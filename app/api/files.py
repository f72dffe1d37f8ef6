"""/api/v1/containers/{reference}: its files, what it has changed, an image of it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from app.api.containers import Reference
from app.api.identity import Initiator, ServicesOf
from app.api.images import ImageView
from app.api.problems import responses
from app.services.commits import CommitRequest

router = APIRouter(prefix="/containers", tags=["containers"])

TAR = "application/x-tar"
_TAR_BODY = {"content": {TAR: {"schema": {"type": "string", "format": "binary"}}}}
_KINDS: tuple[Literal["modified", "added", "deleted"], ...] = ("modified", "added", "deleted")

FilePath = Annotated[
    str, Query(min_length=1, max_length=4096, description="In the container.", examples=["/etc"])
]


class ChangeView(BaseModel):
    """A path that differs from the image."""

    path: str
    kind: Literal["modified", "added", "deleted"]


class CommitBody(BaseModel):
    """The image to make."""

    reference: str = Field(default="", max_length=512, description="Its name.")
    comment: str = Field(default="", max_length=4096)
    author: str = Field(default="", max_length=512)
    changes: list[str] = Field(
        default_factory=list, description="Lines of a Dockerfile.", examples=[["CMD echo hi"]]
    )
    pause: bool = Field(default=True, description="Freeze its processes meanwhile.")


class _WhileOpen(Response):
    """An answer whose source is open only as long as it is sent."""

    def __init__(self, answer: AbstractAsyncContextManager[Response]) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection."""
        async with self._answer as response:
            await response(scope, receive, send)


@router.get(
    "/{reference}/files",
    summary="Copy files out of a container",
    response_class=Response,
    responses={**responses(400, 404, 409, 503, 504), 200: {"description": "A tar.", **_TAR_BODY}},
)
async def read_files(
    reference: Reference, services: ServicesOf, _: Initiator, path: FilePath
) -> Response:
    """A tar of a file, or of a directory and all in it; the container need not run."""

    @asynccontextmanager
    async def answer() -> AsyncIterator[Response]:
        async with services.files.reading(reference, path) as (_, pieces):
            yield StreamingResponse(pieces, media_type=TAR)

    return _WhileOpen(answer())


@router.put(
    "/{reference}/files",
    summary="Copy files into a container",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(400, 403, 404, 409, 422, 503, 504, 507),
    openapi_extra={"requestBody": {"required": True, **_TAR_BODY}},
)
async def write_files(
    reference: Reference, services: ServicesOf, _: Initiator, request: Request, path: FilePath
) -> None:
    """Unpack the body, a tar, in a directory; the container need not run."""
    await services.files.write(reference, path, _chunks(request))


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


@router.get(
    "/{reference}/changes",
    summary="Compare a container with its image",
    responses=responses(400, 404, 409, 503, 504),
)
async def list_changes(
    reference: Reference, services: ServicesOf, _: Initiator
) -> list[ChangeView]:
    """What it has changed, sorted by path."""
    changes = await services.files.changes(reference)
    return [ChangeView(path=each.path, kind=_KINDS[each.kind]) for each in changes]


@router.post(
    "/{reference}/commit",
    summary="Make an image of a container",
    status_code=status.HTTP_201_CREATED,
    responses=responses(400, 404, 409, 422, 503, 504, 507),
)
async def commit_container(
    reference: Reference, body: CommitBody, services: ServicesOf, initiator: Initiator
) -> ImageView:
    """Its image, and what it has changed as a further layer."""
    request = CommitRequest(
        reference=body.reference,
        comment=body.comment,
        author=body.author,
        changes=tuple(body.changes),
        pause=body.pause,
    )
    return ImageView.of(await services.commits.commit(reference, request, initiator=initiator))
