"""/api/v1/images."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Request, status
from pydantic import BaseModel, Field

from app.api.identity import Initiator, ServicesOf
from app.api.problems import responses
from app.domain.image import Image, ImageRemoval

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
