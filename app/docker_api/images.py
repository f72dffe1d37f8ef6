"""/images: list, show, name, remove; archives and registries are in other modules."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from app.core.errors import Unsupported
from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.disk_usage import layer_sizes
from app.docker_api.image_filters import LIST_FILTERS, PRUNE_FILTERS, pruned, select
from app.docker_api.image_view import history_view, inspect_view, list_view, shared_sizes
from app.docker_api.parameters import Flag, filter_flag, parse_filters
from app.docker_api.versions import AskedVersion
from app.domain.image import ImageRemoval

router = APIRouter(prefix="/images")

NOT_RECKONED = -1


@router.get("/json")
async def list_images(
    services: ServicesOf,
    version: AskedVersion,
    filters: str = "",
    shared_size: Annotated[Flag, Query(alias="shared-size")] = False,
) -> list[dict[str, Any]]:
    """Newest first; `all` changes nothing, since there are no images between those with names."""
    wanted = parse_filters(filters, LIST_FILTERS)
    images = list(await services.images.list())
    shared = shared_sizes(images, await layer_sizes(services)) if shared_size else {}
    return [
        list_view(
            image,
            [name.familiar for name in names],
            version,
            shared_bytes=shared.get(image.id, NOT_RECKONED),
            users=NOT_RECKONED,
        )
        for image, names in select(images, wanted, find=services.images.find)
    ]


@router.get("/search")
async def search_images(term: str = "") -> None:
    """There is no index to search."""
    raise Unsupported(
        f"searching for {term!r} is not possible: this engine has no index of images",
        advice="Name the image in full",
    )


@router.post("/prune")
async def prune_images(
    services: ServicesOf, initiator: Initiator, filters: str = ""
) -> dict[str, Any]:
    """Remove those that no container uses; by default only those without a name."""
    wanted = parse_filters(filters, PRUNE_FILTERS)
    removals = await services.upkeep.prune_images(
        pruned(wanted),
        dangling_only=filter_flag(wanted, "dangling") is not False,
        initiator=initiator,
    )
    return {
        "ImagesDeleted": [step for removal in removals for step in _steps(removal)] or None,
        "SpaceReclaimed": sum(removal.freed_bytes for removal in removals),
    }


def _steps(removal: ImageRemoval) -> list[dict[str, str]]:
    return [
        *({"Untagged": name} for name in removal.untagged),
        *({"Deleted": digest} for digest in removal.deleted),
    ]


@router.get("/{reference:path}/json")
async def inspect_image(reference: str, services: ServicesOf) -> dict[str, Any]:
    """All that is known of it."""
    image = await services.images.get(reference)
    return inspect_view(image, await services.images.document(image))


@router.get("/{reference:path}/history")
async def image_history(reference: str, services: ServicesOf) -> list[dict[str, Any]]:
    """How it was made, newest step first."""
    image = await services.images.get(reference)
    return history_view(image, await services.images.document(image))


@router.post("/{reference:path}/tag", status_code=HTTPStatus.CREATED)
async def tag_image(
    reference: str, services: ServicesOf, initiator: Initiator, repo: str = "", tag: str = ""
) -> Response:
    """Give it one more name."""
    await services.images.tag(reference, f"{repo}:{tag}" if tag else repo, initiator=initiator)
    return Response(status_code=HTTPStatus.CREATED)


@router.delete("/{reference:path}")
async def remove_image(
    reference: str, services: ServicesOf, initiator: Initiator, force: Flag = False
) -> list[dict[str, str]]:
    """Take a name away, and the image with its last one."""
    removal = await services.images.remove(reference, force=force, initiator=initiator)
    return _steps(removal)
