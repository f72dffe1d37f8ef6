"""One place that turns errors into pages: the kind of an error decides the status, nothing else."""

import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse

from app.core.errors import (
    AlreadyInState,
    Conflict,
    CorruptData,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PrerequisiteMissing,
    ResourceExhausted,
    SlipwayError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from app.web.security import is_program_path
from app.web.sessions import SignInNeeded
from app.web.shell import Look, local_path, look_of
from app.web.templating import templates_of

log = logging.getLogger(__name__)

# From special to general: the first kind that fits decides.
_STATUSES: tuple[tuple[type[SlipwayError], int, str], ...] = (
    (InvalidArgument, 400, "That can't be done as asked"),
    (Unauthenticated, 401, "Sign in first"),
    (PermissionDenied, 403, "Not allowed"),
    (NotFound, 404, "Not found"),
    (AlreadyInState, 409, "Nothing to do"),
    (Conflict, 409, "Not possible now"),
    (TooManyRequests, 429, "Too many attempts"),
    (CorruptData, 422, "Damaged data"),
    (PrerequisiteMissing, 503, "Something is missing on the host"),
    (Unsupported, 501, "Not available here"),
    (DeadlineExceeded, 504, "No answer in time"),
    (Unavailable, 503, "No answer"),
    (ResourceExhausted, 507, "The host has too little left"),
)
CLIENT_GONE_STATUS = 499  # nginx's number for a client that went away; seen in logs only


@dataclass(frozen=True)
class ErrorPage:
    """What failed, which object, what to do."""

    template: ClassVar[str] = "error.html"
    look: Look
    status: int
    title: str
    message: str
    advice: str
    request_id: str


def status_of(error: SlipwayError) -> tuple[int, str]:
    """HTTP status and heading for an error."""
    for kind, status, title in _STATUSES:
        if isinstance(error, kind):
            return status, title
    return 500, "Something failed"


def error_response(request: Request, page: ErrorPage) -> Response:
    """A page, or a message in the corner when htmx asked."""
    templates = templates_of(request)
    if "hx-request" in request.headers:
        toast = templates.macro(
            "_macros/ui.html", "toast_partial", "bad", page.message, page.advice
        )
        return HTMLResponse(toast, status_code=page.status)
    return HTMLResponse(templates.page(page), status_code=page.status)


def known_error(request: Request, error: SlipwayError) -> Response:
    """The answer to an error that Slipway raised on purpose."""
    status, title = status_of(error)
    request_id = ""
    if status >= 500:
        request_id = secrets.token_hex(4)
        log.warning(
            "%s %s failed (%s): %s", request.method, request.url.path, request_id, error.message
        )
    response = error_response(
        request,
        ErrorPage(look_of(request), status, title, error.message, error.advice, request_id),
    )
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def unknown_error(request: Request) -> Response:
    """The answer to a fault of our own: logged once, with an id that the page shows."""
    request_id = secrets.token_hex(4)
    log.exception("%s %s failed (%s)", request.method, request.url.path, request_id)
    return error_response(
        request,
        ErrorPage(
            look_of(request),
            500,
            "Slipway failed",
            "This is a fault in Slipway, not in what you did. Containers go on running.",
            f"Look for {request_id} in the engine's log.",
            request_id,
        ),
    )


def to_sign_in(request: Request) -> Response:
    """Send the browser to the sign-in, and afterwards back to this page."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = "/sign-in"
    if request.method == "GET" and path != "/" and "hx-request" not in request.headers:
        target += f"?next={quote(local_path(path), safe='/')}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": target})
    return Response(status_code=303, headers={"Location": target})


class WebRoute(APIRoute):
    """Answers every error of the dashboard's routes with a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler that FastAPI built."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except SignInNeeded:
                return to_sign_in(request)
            except SlipwayError as error:
                return known_error(request, error)
            except RequestValidationError as error:
                fault = error.errors()[0]
                field = str(fault["loc"][-1])
                return known_error(
                    request, InvalidArgument(f"{field}: {fault['msg']}", field=field)
                )
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE_STATUS)
            except HTTPException:
                raise
            except Exception:  # noqa: BLE001 - border of a request: whatever it was becomes a page
                return unknown_error(request)

        return guarded


async def missing_page(request: Request, error: Exception) -> Response:
    """The answer to a path that no route knows."""
    detail = getattr(error, "detail", "Not Found")
    if is_program_path(request.url.path):
        body = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": detail}
        return JSONResponse(body, status_code=404, media_type="application/problem+json")
    return known_error(
        request,
        NotFound(
            f"There is no page {request.url.path}",
            advice="The link may be old. Start from the overview.",
        ),
    )
