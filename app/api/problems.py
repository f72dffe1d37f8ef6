"""Errors as RFC 9457 problem details; the one place where REST decides status codes."""

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.core import errors

MEDIA_TYPE = "application/problem+json"

# The most specific kind wins: looked up along the error's classes.
_STATUSES: dict[type[errors.SlipwayError], HTTPStatus] = {
    errors.InvalidFields: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidArgument: HTTPStatus.BAD_REQUEST,
    errors.CorruptData: HTTPStatus.BAD_REQUEST,
    errors.GuestFailed: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDenied: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.AlreadyInState: HTTPStatus.CONFLICT,
    errors.Unsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PrerequisiteMissing: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ResourceExhausted: HTTPStatus.INSUFFICIENT_STORAGE,
}


class Problem(BaseModel):
    """An error, RFC 9457, with Slipway's own members."""

    type: str = Field(default="about:blank", description="Kind of problem; see `code`.")
    title: str = Field(description="The HTTP status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What failed, and on which object.", examples=["No such container: web"]
    )
    code: str = Field(description="Kind of error, for programs.", examples=["not_found"])
    advice: str = Field(default="", description="What to do about it, if anything can be said.")
    errors: dict[str, str] = Field(
        default_factory=dict, description="Text for each faulty field.", examples=[{}]
    )


def status_of(error: errors.SlipwayError) -> HTTPStatus:
    """The HTTP status of an error; what no line names is a defect of ours."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: errors.SlipwayError) -> Problem:
    """The error as a document."""
    status = status_of(error)
    faults = error.faults if isinstance(error, errors.InvalidFields) else {}
    if not faults and isinstance(error, errors.InvalidArgument) and error.field:
        faults = {error.field: error.message}
    return Problem(
        title=status.phrase,
        status=status,
        detail=error.message,
        code=error.code,
        advice=error.advice,
        errors=faults,
    )


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The document as an answer."""
    return JSONResponse(
        problem.model_dump(), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers
    )


def respond(error: errors.SlipwayError) -> JSONResponse:
    """Answer an error of ours."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="slipway"'
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    return problem_response(problem_of(error), headers)


def respond_invalid(error: RequestValidationError) -> JSONResponse:
    """Answer a request whose shape is wrong, naming each field by its path."""
    faults: dict[str, str] = {}
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0])
        faults[path] = str(fault["msg"])
    return problem_response(
        Problem(
            title=HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
            detail="; ".join(f"{field}: {text}" for field, text in faults.items()),
            code=errors.InvalidFields.code,
            errors=faults,
        )
    )


def respond_http(error: HTTPException) -> JSONResponse:
    """Answer what the framework refuses by itself: unknown paths and methods."""
    status = HTTPStatus(error.status_code)
    return problem_response(
        Problem(
            title=status.phrase,
            status=status,
            detail=str(error.detail),
            code=status.name.lower(),
        ),
        dict(error.headers or {}),
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare problem answers for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content, "model": Problem}
        for status in statuses
    }
