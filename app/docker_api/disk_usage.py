"""GET /system/df: what images and containers take."""

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.core.errors import InvalidArgument
from app.docker_api import image_view
from app.docker_api.access import ServicesOf
from app.docker_api.container_list import Listed, list_view
from app.docker_api.versions import ApiVersion, AskedVersion
from app.services.bundle import Services

router = APIRouter(prefix="/system")

TYPES = frozenset({"container", "image", "volume", "build-cache"})


@router.get("/df")
async def disk_usage(
    services: ServicesOf,
    version: AskedVersion,
    kinds: Annotated[list[str] | None, Query(alias="type")] = None,
) -> dict[str, Any]:
    """Of everything, or of some kinds of objects."""
    wanted = frozenset(kinds or TYPES)
    for kind in wanted - TYPES:
        raise InvalidArgument(f"unknown object type: {kind}")
    answer: dict[str, Any] = {}
    if "image" in wanted:
        layers = await layer_sizes(services)
        answer["LayersSize"] = sum(layers.values())
        answer["Images"] = await _images(services, layers, version)
    if "container" in wanted:
        answer["Containers"] = await _containers(services)
    if "volume" in wanted:
        answer["Volumes"] = []
    if "build-cache" in wanted:
        answer["BuildCache"] = []
    return answer


async def layer_sizes(services: Services) -> dict[str, int]:
    """Uncompressed sizes of all layers by diff_id, each once."""
    layers: dict[str, int] = {}
    for image in await services.images.list():
        stored = await services.images.document(image)
        layers.update(zip(image.diff_ids, stored.layer_sizes_bytes, strict=False))
    return layers


async def _images(
    services: Services, layers: dict[str, int], version: ApiVersion
) -> list[dict[str, Any]]:
    images = await services.images.list()
    shared = image_view.shared_sizes(images, layers)
    users = Counter(container.image_id for container in await services.containers.list())
    return [
        image_view.list_view(
            image,
            image_view.tags_of(image),
            version,
            shared_bytes=shared[image.id],
            users=users[image.id],
        )
        for image in images
    ]


async def _containers(services: Services) -> list[dict[str, Any]]:
    images = {image.id: image for image in await services.images.list()}
    views = []
    for container in await services.containers.list():
        sizes = await services.upkeep.sizes(container)
        shown = {
            "SizeRw": sizes.scratch_bytes,
            "SizeRootFs": sizes.scratch_bytes + sizes.image_bytes,
        }
        listed = Listed(container, images.get(container.image_id))
        views.append(list_view(listed, container.config.image, shown))
    return views
