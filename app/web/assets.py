"""Static files: read once, compressed once, served under a name that changes with their content.

All files share one hash in the path (`/static/<hash>/js/live.js`), so that ES modules can import
each other by relative names and everything may be cached for ever.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

MOUNT_PATH = "/static"
_COMPRESSED_SUFFIXES = frozenset({".css", ".js", ".svg", ".json", ".txt", ".webmanifest"})
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_HASH_DIGITS = 12


@dataclass(frozen=True)
class _File:
    body: bytes
    gzipped: bytes | None
    media_type: str


class Assets:
    """The directory's files in memory: some hundred kB; and the ASGI app that serves them."""

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, _File] = {}
        digest = hashlib.sha256()
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            name = path.relative_to(directory).as_posix()
            body = path.read_bytes()
            digest.update(f"{name}\0{len(body)}\0".encode())
            digest.update(body)
            self._files[name] = _File(body, _gzipped(path, body), _media_type(path))
        self._prefix = digest.hexdigest()[:_HASH_DIGITS]

    def url(self, name: str) -> str:
        """The path under which the file is served.

        Raises:
            KeyError: There is no such file; a template that names one is wrong.
        """
        if name not in self._files:
            raise KeyError(f"No static file {name}: is static/ complete (./run builds vendor/)?")
        return f"{MOUNT_PATH}/{self._prefix}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def compressed_size_bytes(self, name: str) -> int:
        """What a browser downloads."""
        file = self._files[name]
        return len(file.body if file.gzipped is None else file.gzipped)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET and HEAD of a file."""
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("Method not allowed", status_code=405)
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(MOUNT_PATH)
        prefix, _, name = path.strip("/").partition("/")
        file = self._files.get(name)
        if file is None:
            return PlainTextResponse("Not found", status_code=404)
        # A page from before an upgrade asks with the old hash: it gets the new file, uncached.
        is_current = prefix == self._prefix
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if is_current else "no-store",
            "Vary": "Accept-Encoding",
        }
        body = file.body
        if file.gzipped and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
            body = file.gzipped
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=file.media_type, headers=headers)


def _gzipped(path: Path, body: bytes) -> bytes | None:
    if path.suffix not in _COMPRESSED_SUFFIXES:
        return None
    packed = gzip.compress(body, 9, mtime=0)
    return packed if len(packed) < len(body) else None


def _media_type(path: Path) -> str:
    if path.suffix in _TYPES:
        return _TYPES[path.suffix]
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
