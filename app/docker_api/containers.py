"""/containers: create, show, list, and what is done with one; streams are in other modules."""

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from app.core.errors import Conflict, InvalidArgument, NotFound, SlipwayError, Unsupported
from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.bodies import body_of
from app.docker_api.container_list import FILTERS, Listed, list_view, select
from app.docker_api.container_view import inspect_view
from app.docker_api.create_body import CreateBody
from app.docker_api.create_config import container_config, warnings_for
from app.docker_api.parameters import Flag, Number, parse_filters
from app.docker_api.platforms import check_platform
from app.domain.container import Container, NotRunning
from app.domain.image import Image
from app.services.bundle import Services

router = APIRouter(prefix="/containers")

FOREVER_S = 10**9  # of `stop --time -1`


@router.get("/json")
async def list_containers(
    services: ServicesOf,
    all: Flag = False,
    limit: Number = 0,
    size: Flag = False,
    filters: str = "",
    since: str = "",
    before: str = "",
) -> list[dict[str, Any]]:
    """Newest first."""
    wanted = dict(parse_filters(filters, FILTERS))
    wanted |= {name: (value,) for name, value in (("since", since), ("before", before)) if value}
    # Filters may name others than those that run.
    containers = await services.containers.list(all=all or limit > 0 or bool(wanted))
    images = {image.id: image for image in await services.images.list()}
    names = {name.familiar: image for image in images.values() for name in image.references}
    chosen = select(
        [Listed(each, images.get(each.image_id)) for each in containers],
        wanted,
        all=all,
        limit=limit,
        find=lambda reference: _named(containers, reference),
        find_image=services.images.find,
    )
    return [
        list_view(
            each,
            _image_name(each.container, names, services),
            await _sizes(services, each.container) if size else {},
        )
        for each in chosen
    ]


def _named(containers: Sequence[Container], reference: str) -> Container | None:
    name = reference.removeprefix("/")
    for each in containers:
        if name in {each.name, each.id}:
            return each
    found = [each for each in containers if each.id.startswith(name)]
    return found[0] if len(found) == 1 else None


def _image_name(container: Container, names: dict[str, Image], services: Services) -> str:
    """The name as it was given while it means the same image; then the image's id."""
    given = container.config.image
    image = names.get(given) or names.get(f"{given}:latest")
    if image is None:
        with suppress(SlipwayError):
            image = services.images.find(given)
    return given if image is not None and image.id == container.image_id else container.image_id


async def _sizes(services: Services, container: Container) -> dict[str, int]:
    sizes = await services.upkeep.sizes(container)
    return {"SizeRw": sizes.scratch_bytes, "SizeRootFs": sizes.scratch_bytes + sizes.image_bytes}


@router.post("/create", status_code=HTTPStatus.CREATED)
async def create_container(
    services: ServicesOf,
    initiator: Initiator,
    body: Annotated[CreateBody, Depends(body_of(CreateBody))],
    name: str = "",
    platform: str = "",
) -> dict[str, Any]:
    """Record it; the image must be here already."""
    if not body.image:
        raise InvalidArgument("config cannot be empty in order to create a container")
    config = container_config(body)
    if platform:
        check_platform(await services.images.get(body.image), body.image, platform)
    container = await services.containers.create(config, name=name or None, initiator=initiator)
    return {"Id": container.id, "Warnings": warnings_for(body)}


@router.get("/{reference}/json")
async def inspect_container(
    reference: str, services: ServicesOf, size: Flag = False
) -> dict[str, Any]:
    """Its record, with what its image adds."""
    container = await services.containers.get(reference)
    return inspect_view(
        container,
        await services.containers.image_config(container),
        exec_ids=services.exec.ids_of(container.id),
        sizes=await _sizes(services, container) if size else {},
    )


@router.get("/{reference}/top")
async def container_processes(
    reference: str, services: ServicesOf, ps_args: str = ""
) -> dict[str, Any]:
    """Its processes, by the numbers that they have in its VM."""
    titles, rows = await services.processes.top(reference, ps_args)
    return {"Processes": rows, "Titles": titles}


@router.post("/{reference}/start", status_code=HTTPStatus.NO_CONTENT)
async def start_container(
    reference: str, services: ServicesOf, initiator: Initiator, checkpoint: str = ""
) -> None:
    """Answer once its process runs."""
    if checkpoint:
        raise Unsupported(
            "Checkpoints are not supported: a virtual machine is not restored by CRIU"
        )
    await services.containers.start(reference, initiator=initiator)


@router.post("/{reference}/stop", status_code=HTTPStatus.NO_CONTENT)
async def stop_container(
    reference: str,
    services: ServicesOf,
    initiator: Initiator,
    t: int | None = None,
    signal: str = "",
) -> None:
    """Answer once it has ended."""
    await services.containers.stop(
        reference, timeout_s=_timeout_s(t), signal=signal, initiator=initiator
    )


@router.post("/{reference}/restart", status_code=HTTPStatus.NO_CONTENT)
async def restart_container(
    reference: str,
    services: ServicesOf,
    initiator: Initiator,
    t: int | None = None,
    signal: str = "",
) -> None:
    """Stop it if it runs, then start it."""
    await services.containers.restart(
        reference, timeout_s=_timeout_s(t), signal=signal, initiator=initiator
    )


def _timeout_s(t: int | None) -> int | None:
    return FOREVER_S if t is not None and t < 0 else t


@router.post("/{reference}/kill", status_code=HTTPStatus.NO_CONTENT)
async def kill_container(
    reference: str, services: ServicesOf, initiator: Initiator, signal: str = ""
) -> None:
    """Signal its first process."""
    try:
        await services.containers.kill(reference, signal=signal or "SIGKILL", initiator=initiator)
    except NotRunning as error:
        raise Conflict(
            f"cannot kill container: {reference}: container {error.container_id} is not running"
        ) from error


@router.post("/{reference}/pause", status_code=HTTPStatus.NO_CONTENT)
async def pause_container(reference: str, services: ServicesOf, initiator: Initiator) -> None:
    """Freeze its processes."""
    await services.containers.pause(reference, initiator=initiator)


@router.post("/{reference}/unpause", status_code=HTTPStatus.NO_CONTENT)
async def unpause_container(reference: str, services: ServicesOf, initiator: Initiator) -> None:
    """Let them go on."""
    await services.containers.unpause(reference, initiator=initiator)


@router.post("/{reference}/rename", status_code=HTTPStatus.NO_CONTENT)
async def rename_container(
    reference: str, services: ServicesOf, initiator: Initiator, name: str = ""
) -> None:
    """Give it another name."""
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await services.containers.rename(reference, name, initiator=initiator)


@router.post("/{reference}/resize")
async def resize_container(
    reference: str, services: ServicesOf, h: Number = 0, w: Number = 0
) -> Response:
    """Set the size of its terminal."""
    container = await services.containers.get(reference)
    await services.containers.resize(container, rows=h, columns=w)
    return Response(status_code=HTTPStatus.OK)


@router.delete("/{reference:path}", status_code=HTTPStatus.NO_CONTENT)
async def remove_container(
    reference: str,
    services: ServicesOf,
    initiator: Initiator,
    force: Flag = False,
    link: Flag = False,
) -> None:
    """Remove it; `v` has nothing to remove, since no container has a volume."""
    if link:
        raise NotFound(f"Could not get parent container for {reference}: there are no links")
    await services.containers.remove(reference, force=force, initiator=initiator)
