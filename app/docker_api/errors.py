"""Errors as Docker's clients know them: the one place that decides statuses and texts here."""

import errno
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.core import errors
from app.domain.container import IsPaused, NotRunning
from app.domain.registry import LoginFailed, RegistryDenied, RegistryFailed

logger = logging.getLogger(__name__)

PAGE_NOT_FOUND = "page not found"

# The most specific kind wins: looked up along the error's classes.
_STATUSES: dict[type[errors.SlipwayError], HTTPStatus] = {
    errors.InvalidArgument: HTTPStatus.BAD_REQUEST,
    errors.CorruptData: HTTPStatus.BAD_REQUEST,
    errors.GuestFailed: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDenied: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.AlreadyInState: HTTPStatus.NOT_MODIFIED,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PrerequisiteMissing: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ResourceExhausted: HTTPStatus.INTERNAL_SERVER_ERROR,
    LoginFailed: HTTPStatus.UNAUTHORIZED,
    RegistryDenied: HTTPStatus.INTERNAL_SERVER_ERROR,  # what a registry refuses, Docker passes on
    RegistryFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
}

# Clients match the texts of the other kinds, so nothing may follow them.
_WITH_ADVICE = (
    errors.Unsupported,
    errors.Unavailable,
    errors.PrerequisiteMissing,
    errors.ResourceExhausted,
    errors.PermissionDenied,
)


def status_of(error: errors.SlipwayError) -> HTTPStatus:
    """The HTTP status of an error; what no line names is a defect of ours."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def text_of(error: errors.SlipwayError) -> str:
    """What the client shows."""
    if isinstance(error, NotRunning):
        return f"container {error.container_id} is not running"
    if isinstance(error, IsPaused):
        return f"Container {error.container_name} is paused, unpause the container before exec"
    if error.advice and isinstance(error, _WITH_ADVICE):
        return f"{error.message}. {error.advice}"
    return error.message


def exec_failure(command: Sequence[str], error: errors.GuestFailed) -> str:
    """Why a command could not be run, as Docker's runtime says it and tools look for it."""
    reason = {
        errno.ENOENT: "executable file not found in $PATH",
        errno.EACCES: "permission denied",
    }.get(error.errno)
    if reason is None:
        return f"OCI runtime exec failed: {error.message}"
    return (
        "OCI runtime exec failed: exec failed: unable to start container process: "
        f'exec: "{command[0]}": {reason}: unknown'
    )


def message(status: HTTPStatus, text: str) -> Response:
    """An error's answer: `{"message": …}`, or nothing where HTTP allows no body."""
    if status is HTTPStatus.NOT_MODIFIED:
        return Response(status_code=status)
    return JSONResponse({"message": text}, status_code=status)


def respond(error: errors.SlipwayError) -> Response:
    """Answer an error of ours."""
    return message(status_of(error), text_of(error))


def install(app: FastAPI) -> None:
    """Let every error of `app` be answered in Docker's form."""

    @app.exception_handler(errors.SlipwayError)
    async def ours(request: Request, error: errors.SlipwayError) -> Response:
        answer = respond(error)
        if answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("%s %s: %s", request.method, request.url.path, error.message)
        return answer

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return message(HTTPStatus.BAD_REQUEST, text_of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        # Docker has no "method not allowed": to its router the path does not exist either.
        if error.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return message(HTTPStatus.NOT_FOUND, PAGE_NOT_FOUND)
        return message(HTTPStatus(error.status_code), str(error.detail))

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> Response:
        text = "Slipway met a defect of its own; its log tells more"
        return message(HTTPStatus.INTERNAL_SERVER_ERROR, text)


def text_of_validation(faults: Any) -> str:  # noqa: ANN401  (pydantic's own untyped list)
    """Faulty parameters or fields in one line."""
    texts = []
    for fault in faults:
        path = ".".join(str(part) for part in fault["loc"] if part not in {"query", "body", "path"})
        text = str(fault["msg"]).removeprefix("Value error, ")
        texts.append(f"invalid {path}: {text}" if path else text)
    return "; ".join(texts)
