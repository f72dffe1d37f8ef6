"""What stands before every page: response headers, the Host check, and the Origin check.

A page of another site may make the operator's browser send requests here. Names that resolve to
this machine only because somebody's DNS says so (rebinding) are refused by Host; forms and
websockets from elsewhere by Origin; and each form carries its session's CSRF token besides
(app.web.sessions).
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Faces for programs: they carry their own proof (bearer token) or tell nothing secret.
_PROGRAM_PREFIXES = ("/api/", "/metrics", "/healthz")
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_program_path(path: str) -> bool:
    """Whether the path belongs to REST, metrics or health."""
    return path.startswith(_PROGRAM_PREFIXES)


class HostRule:
    """Which Host headers name this dashboard.

    An address can't be rebound, so every address is allowed; of names, those of the loopback
    interface, the setting `host`, and the host of `public_url`.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = set(_LOOPBACK_NAMES)
        self._names.add(settings.host.lower())
        public_host = urlsplit(settings.public_url).hostname
        if public_host:
            self._names.add(public_host)

    def allows(self, host_header: str) -> bool:
        """Judge a Host header, with or without a port."""
        try:
            name = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        name = name.rstrip(".")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_same_origin(headers: Headers, public_url: str = "") -> bool:
    """Whether a request that changes something comes from a page of this dashboard.

    A proxy may put another Host in; browsers then name the one of `public_url`.

    Browsers send Origin with every such request and every websocket; where a program sends neither
    Origin nor Sec-Fetch-Site it can't be riding on a browser's cookie.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    # The scheme is left out: behind a proxy that ends TLS it differs from what we see.
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(netloc) and netloc in {headers.get("host"), urlsplit(public_url).netloc}


class WebSecurity:
    """Pure ASGI middleware, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._hosts = HostRule(settings)
        self._public_url = settings.public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and add the headers."""
        if scope["type"] not in {"http", "websocket"} or is_program_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "Refused"})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        if not self._hosts.allows(headers.get("host", "")):
            return PlainTextResponse(
                "This name is not one of this dashboard's. Use its address, or set "
                "SLIPWAY_PUBLIC_URL to the URL by which browsers reach it.\n",
                status_code=421,
            )
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if changes and not is_same_origin(headers, self._public_url):
            return PlainTextResponse("Requests from other sites are refused.\n", status_code=403)
        return None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with_headers
