"""Who is looking: the session cookie, and the CSRF token that each form carries."""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.core.errors import PermissionDenied
from app.domain.account import SESSION_LIFETIME_S
from app.settings import Settings
from app.web.forms import Form, read_body_form

if TYPE_CHECKING:
    from app.domain.account import Session
    from app.services.bundle import Services


class SignInNeeded(Exception):
    """Nobody is signed in; the page answers with the way to the sign-in."""


@dataclass(frozen=True)
class Viewer:
    """The signed-in user of one request or websocket."""

    user_name: str
    csrf_token: str
    session_token: str


class SessionCookie:
    """Name and attributes of the cookie that carries the session's token.

    Cookies ignore ports, so the port is part of the name: two dashboards on one machine do not sign
    each other out. Lax, not Strict, so that a link to a container in a ticket opens signed in;
    every change needs the CSRF token besides.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_secure = urlsplit(settings.public_url).scheme == "https"
        self.name = f"{'__Host-' if self.is_secure else ''}slipway-{settings.port}"

    def token(self, connection: HTTPConnection) -> str:
        """The token that the browser sent, or an empty text."""
        return connection.cookies.get(self.name, "")

    def set(self, response: Response, session: "Session") -> None:
        """Store a new session in the browser; when it ends is the server's to say."""
        response.set_cookie(
            self.name,
            session.token,
            max_age=SESSION_LIFETIME_S,
            secure=self.is_secure,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        """Take it out of the browser."""
        response.delete_cookie(self.name, secure=self.is_secure, httponly=True, samesite="lax")


def services_of(connection: HTTPConnection) -> "Services":
    """The use cases, put there by the application's lifespan."""
    return cast("Services", connection.state.services)


def cookie_of(connection: HTTPConnection) -> SessionCookie:
    """The cookie's description, put there by `install`."""
    return cast("SessionCookie", connection.app.state.web.cookie)


async def viewer_of(connection: HTTPConnection) -> Viewer | None:
    """Who is asking, or None."""
    token = cookie_of(connection).token(connection)
    if not token:
        return None
    session = await services_of(connection).accounts.authenticate_session(token)
    if session is None:
        return None
    return Viewer(session.user_name, session.csrf_token, token)


async def signed_in(request: Request) -> Viewer:
    """Dependency of every page behind the sign-in.

    Raises:
        SignInNeeded: There is no valid session.
    """
    viewer = await viewer_of(request)
    if viewer is None:
        raise SignInNeeded
    return viewer


SignedIn = Annotated[Viewer, Depends(signed_in)]


def require_csrf(viewer: Viewer, presented: str) -> None:
    """Refuse a change that does not come from a form of this session.

    Raises:
        PermissionDenied: The token is missing or another session's.
    """
    if not hmac.compare_digest(presented.encode(), viewer.csrf_token.encode()):
        raise PermissionDenied(
            "The form is out of date, nothing was changed",
            advice="Load the page again and repeat what you did.",
        )


async def posted_form(request: Request, viewer: SignedIn) -> Form:
    """Dependency of every change: the form, its CSRF token checked (field `csrf` or header)."""
    presented = request.headers.get("x-csrf-token", "")
    if presented:
        require_csrf(viewer, presented)
    form = await read_body_form(request)
    if not presented:
        require_csrf(viewer, form.text("csrf"))
    return form


Posted = Annotated[Form, Depends(posted_form)]
