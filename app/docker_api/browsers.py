"""Keeps browsers off a port that asks for no credentials.

Any page may let its visitor's browser send requests to a loopback address. Such a request names
its origin; one that came by a rebound name of the attacker's names that as its host.
"""

import ipaddress
import json

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

REFUSAL = (
    "This port answers Docker clients on this machine only: "
    "no browsers, and no host names but localhost"
)
_FOREIGN_SITES = frozenset({"cross-site", "same-site"})


class BrowserGuard:
    """Refuses what a page from elsewhere could send; wraps the application of a plain TCP port."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"} or is_local(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = json.dumps({"message": REFUSAL}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def is_local(headers: Headers) -> bool:
    """Whether a request is meant for a loopback address and comes from no other origin.

    An origin equal to the host is none: we serve no pages, but some websocket clients send it.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return False
    if headers.get("sec-fetch-site") in _FOREIGN_SITES:
        return False
    return _is_loopback(host)


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
