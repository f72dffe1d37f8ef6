"""Versions of the Docker Engine API: which are spoken, and by which a request asks."""

import json
import re
from typing import Annotated, NamedTuple, Self

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import __version__

# The release of Docker whose answers are ours, then our own: as distributions mark theirs.
ENGINE_VERSION = f"26.1.5+slipway{__version__}"

_ANSWER_STARTS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)
_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(?=/|$)")


class ApiVersion(NamedTuple):
    """A version of the API; compares by number."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def of(cls, connection: HTTPConnection) -> Self:
        """The version a request asks by."""
        version: Self = connection.state.api_version
        return version


NEWEST = ApiVersion(1, 45)
OLDEST = ApiVersion(1, 24)

AskedVersion = Annotated[ApiVersion, Depends(ApiVersion.of)]

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"Api-Version", str(NEWEST).encode()),
    (b"Docker-Experimental", b"false"),
    (b"Ostype", b"linux"),
    (b"Server", f"Docker/{ENGINE_VERSION} (linux)".encode()),
)


class VersionMiddleware:
    """Takes `/vX.Y` off the path, refuses versions we don't speak, and marks every answer.

    Pure ASGI: a middleware that wraps streams would break hijacked connections.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] in _ANSWER_STARTS:
                message["headers"] = [*HEADERS, *message.get("headers", ())]
            await send(message)

        version, scope = _split(scope)
        if (fault := _fault(version)) and scope["type"] == "http":
            await _refuse(fault, marked)
            return
        scope["state"] = {**scope.get("state", {}), "api_version": version}
        await self._app(scope, receive, marked)


def _split(scope: Scope) -> tuple[ApiVersion, Scope]:
    match = _PREFIX.match(scope["path"])
    if match is None:
        return NEWEST, dict(scope)
    version = ApiVersion(int(match[1]), int(match[2]))
    path = scope["path"][match.end() :] or "/"
    raw_path = scope.get("raw_path") or b""
    return version, {**scope, "path": path, "raw_path": raw_path[match.end() :] or b"/"}


def _fault(version: ApiVersion) -> str:
    """Docker's words for a version we don't speak (moby, server/middleware/version.go)."""
    if version < OLDEST:
        return (
            f"client version {version} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        return f"client version {version} is too new. Maximum supported API version is {NEWEST}"
    return ""


async def _refuse(fault: str, send: Send) -> None:
    body = json.dumps({"message": fault}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
