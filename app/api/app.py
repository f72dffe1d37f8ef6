"""The REST face as an application of its own, mounted by `app.main` at /api/v1."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.api import containers, events, files, hosts, images, logs, problems
from app.core.errors import SlipwayError

MOUNT_PATH = "/api/v1"

logger = logging.getLogger(__name__)


def create_api(version: str) -> FastAPI:
    """Build the face; requests need `services` in the server's lifespan state."""
    api = FastAPI(
        title="Slipway",
        version=version,
        summary="Linux containers, each in a micro-VM of its own.",
        servers=[{"url": MOUNT_PATH}],
        docs_url=None,  # pages that load scripts from elsewhere; the document itself is served
        redoc_url=None,
        responses=problems.responses(401),
    )
    for face in (hosts, containers, files, logs, images, events):
        api.include_router(face.router)
    _answer_errors(api)
    return api


def _answer_errors(api: FastAPI) -> None:
    @api.exception_handler(SlipwayError)
    async def ours(request: Request, error: SlipwayError) -> Response:
        answer = problems.respond(error)
        if answer.status_code >= 500:
            logger.error("%s %s: %s", request.method, request.url.path, error.message)
        return answer

    @api.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return problems.respond_invalid(error)

    @api.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return problems.respond_http(error)
