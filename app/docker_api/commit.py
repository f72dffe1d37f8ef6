"""POST /commit: an image of a container."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.core.errors import InvalidArgument
from app.docker_api.access import Initiator, ServicesOf
from app.docker_api.bodies import body_of
from app.docker_api.create_body import CreateBody
from app.docker_api.parameters import Flag
from app.domain.image import Healthcheck, ImageConfig
from app.services.commits import CommitRequest

router = APIRouter()


@router.post("/commit", status_code=HTTPStatus.CREATED)
async def commit(
    services: ServicesOf,
    initiator: Initiator,
    body: Annotated[CreateBody, Depends(body_of(CreateBody))],
    container: str = "",
    repo: str = "",
    tag: str = "",
    comment: str = "",
    author: str = "",
    pause: Flag = True,
    changes: Annotated[list[str] | None, Query()] = None,
) -> dict[str, str]:
    """Make it; `pause` is on unless it is said otherwise."""
    if not container:
        raise InvalidArgument("no container given to commit")
    image = await services.commits.commit(
        container,
        CommitRequest(
            reference=f"{repo}:{tag}" if repo and tag else repo,
            comment=comment,
            author=author,
            changes=tuple(changes or ()),
            config=_config(body),
            pause=pause,
        ),
        initiator=initiator,
    )
    return {"Id": image.id}


def _config(body: CreateBody) -> ImageConfig:
    health = body.healthcheck
    return ImageConfig(
        entrypoint=tuple(body.entrypoint or ()),
        cmd=tuple(body.cmd or ()),
        env=tuple(body.env),
        user=body.user,
        working_dir=body.working_dir,
        exposed_ports=tuple(sorted(body.exposed_ports)),
        volumes=tuple(sorted(body.volumes)),
        labels=body.labels,
        stop_signal=body.stop_signal,
        healthcheck=None
        if health is None
        else Healthcheck(
            tuple(health.test),
            health.interval,
            health.timeout,
            health.start_period,
            health.start_interval,
            health.retries,
        ),
    )
