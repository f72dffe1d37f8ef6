"""/api/v1/images."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Request, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from app.api.identity import Initiator, ServicesOf
from app.api.lines import NDJSON, ndjson
from app.api.problems import Problem, problem_of, responses
from app.core.errors import SlipwayError
from app.domain.image import Image, ImageRemoval
from app.domain.registry import Credentials, LayerProgress, Transfer, TransferEnded
from app.services.transfers import RunningTransfer

router = APIRouter(prefix="/images", tags=["images"])

Reference = Annotated[
    str, Path(description="Reference, id or unique prefix.", examples=["busybox:latest"])
]
NewReference = Annotated[str, Query(max_length=512, examples=["shop/checkout:4.18"])]


class ImageView(BaseModel):
    """An image."""

    id: str
    references: list[str]
    created: datetime | None
    architecture: str
    os: str
    size_bytes: int
    layers: list[str] = Field(description="Digests of the uncompressed layers, lowest first.")
    entrypoint: list[str]
    cmd: list[str]
    env: list[str]
    user: str
    working_dir: str
    labels: dict[str, str]

    @classmethod
    def of(cls, image: Image) -> Self:
        """From the store's view."""
        return cls(
            id=image.id,
            references=[reference.familiar for reference in image.tags],
            created=image.created,
            architecture=image.architecture,
            os=image.os,
            size_bytes=image.size_bytes,
            layers=list(image.diff_ids),
            entrypoint=list(image.config.entrypoint),
            cmd=list(image.config.cmd),
            env=list(image.config.env),
            user=image.config.user,
            working_dir=image.config.working_dir,
            labels=dict(image.config.labels),
        )


class RemovalView(BaseModel):
    """What removing an image did."""

    untagged: list[str]
    deleted: list[str]
    freed_bytes: int

    @classmethod
    def of(cls, removal: ImageRemoval) -> Self:
        """From the store's answer."""
        return cls(
            untagged=list(removal.untagged),
            deleted=list(removal.deleted),
            freed_bytes=removal.freed_bytes,
        )


@router.get("", summary="List images")
async def list_images(services: ServicesOf, _: Initiator) -> list[ImageView]:
    """Newest first."""
    return [ImageView.of(image) for image in await services.images.list()]


@router.post(
    "",
    summary="Import an image",
    status_code=status.HTTP_201_CREATED,
    responses=responses(400, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def import_image(
    request: Request,
    services: ServicesOf,
    initiator: Initiator,
    reference: Annotated[
        str | None, Query(max_length=512, description="Name for it; needed for a plain tar.")
    ] = None,
) -> list[ImageView]:
    """The body is a `docker save` archive, an OCI archive or a root filesystem's tar, streamed."""
    images = await services.images.import_stream(
        _chunks(request), reference=reference, initiator=initiator
    )
    return [ImageView.of(image) for image in images]


class PullCredentials(BaseModel):
    """Who asks the registry; nothing of it is kept."""

    username: str = Field(default="", max_length=512)
    password: str = Field(default="", max_length=8192)


class PullStep(BaseModel):
    """A line of a pull's answer; only what a step has is there."""

    layer: str | None = Field(default=None, description="Short digest of the layer it tells of.")
    stage: str | None = Field(default=None, examples=["Downloading", "Pull complete"])
    done_bytes: int | None = None
    total_bytes: int | None = None
    digest: str | None = Field(default=None, description="In the last line: what was pulled.")
    is_news: bool | None = Field(default=None, description="Likewise: whether anything changed.")
    problem: Problem | None = Field(default=None, description="In the last line: why it failed.")

    @classmethod
    def of(cls, step: Transfer) -> Self:
        """From the service's step."""
        if isinstance(step, TransferEnded):
            return cls(digest=str(step.digest), is_news=step.is_news)
        if not isinstance(step, LayerProgress):
            return cls(stage="Pulling")
        counts = {"done_bytes": step.done_bytes, "total_bytes": step.total_bytes}
        return cls(layer=step.layer, stage=step.stage, **(counts if step.total_bytes else {}))


class _Pulling(StreamingResponse):
    """Ends the pull with the connection."""

    def __init__(self, transfer: RunningTransfer) -> None:
        super().__init__(_pull_lines(transfer), media_type=NDJSON)
        self._transfer = transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._transfer.close()


async def _pull_lines(transfer: RunningTransfer) -> AsyncIterator[bytes]:
    try:
        async for step in transfer.steps():
            yield ndjson(PullStep.of(step))
    except SlipwayError as error:
        yield ndjson(PullStep(problem=problem_of(error)))


@router.post(
    "/pull",
    summary="Pull an image",
    response_class=StreamingResponse,
    responses=responses(400, 403, 404, 422, 503)
    | {200: {"content": {NDJSON: {"schema": PullStep.model_json_schema()}}}},
)
async def pull_image(
    services: ServicesOf,
    initiator: Initiator,
    reference: Annotated[str, Query(max_length=512, examples=["busybox:1.36"])],
    platform: Annotated[str, Query(max_length=64, examples=["linux/amd64"])] = "",
    credentials: PullCredentials | None = None,
) -> StreamingResponse:
    """Steps as JSON lines once the registry has answered; hanging up ends the pull."""
    who = credentials or PullCredentials()
    transfer = await services.registries.pull(
        reference,
        platform=platform,
        credentials=Credentials(who.username, who.password),
        initiator=initiator,
    )
    return _Pulling(transfer)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


@router.post("/{reference:path}/tag", summary="Name an image", responses=responses(400, 404, 409))
async def tag_image(
    reference: Reference, services: ServicesOf, initiator: Initiator, to: NewReference
) -> ImageView:
    """Give it one more name."""
    return ImageView.of(await services.images.tag(reference, to, initiator=initiator))


@router.get("/{reference:path}", summary="Show an image", responses=responses(400, 404))
async def get_image(reference: Reference, services: ServicesOf, _: Initiator) -> ImageView:
    """What the store knows of it."""
    return ImageView.of(await services.images.get(reference))


@router.delete("/{reference:path}", summary="Remove an image", responses=responses(400, 404, 409))
async def delete_image(
    reference: Reference,
    services: ServicesOf,
    initiator: Initiator,
    force: Annotated[bool, Query(description="Untag even if a stopped container uses it.")] = False,
) -> RemovalView:
    """Untag it, and delete what nothing refers to any more."""
    removal = await services.images.remove(reference, force=force, initiator=initiator)
    return RemovalView.of(removal)
