"""The Docker Engine API as an ASGI application, never served on the dashboard's port."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.docker_api import (
    absent,
    archive,
    attach,
    build_cache,
    commit,
    container_logs,
    container_stats,
    container_upkeep,
    container_wait,
    containers,
    disk_usage,
    distribution,
    errors,
    events,
    exec,
    image_archives,
    images,
    networks,
    system,
    volumes,
)
from app.docker_api.versions import VersionMiddleware
from app.services.bundle import Services


def create_docker_app(services: Services) -> ASGIApp:
    """Build the face over a running engine."""
    app = FastAPI(
        title="Docker Engine API of Slipway",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    for face in (
        system,
        archive,
        commit,
        attach,
        events,
        exec,
        container_logs,
        container_stats,
        container_upkeep,
        container_wait,
        containers,
        disk_usage,
        build_cache,
        image_archives,
        distribution,
        images,
        networks,
        volumes,
        absent,
    ):
        app.include_router(face.router)
    errors.install(app)
    return VersionMiddleware(app)
