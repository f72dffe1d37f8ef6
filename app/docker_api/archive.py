"""Files of containers as archives: `docker cp` both ways, diff, export."""

import base64
import json
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import InvalidArgument
from app.docker_api.access import ServicesOf
from app.docker_api.parameters import Flag
from app.docker_api.times import iso_time
from app.services.files import PathStat

router = APIRouter(prefix="/containers")

TAR = "application/x-tar"
STAT_HEADER = "X-Docker-Container-Path-Stat"
# Go's os.FileMode (go/src/io/fs/fs.go), which is what Docker sends.
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class _WhileOpen(Response):
    """An answer whose source is open only as long as it is sent.

    Args:
        answer: Gives it; what it raises before is answered as an error of any other route.
    """

    def __init__(self, answer: AbstractAsyncContextManager[Response]) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection."""
        async with self._answer as response:
            await response(scope, receive, send)


def go_mode(mode: int) -> int:
    """A mode as Go numbers it."""
    bits = sum(go for bit, go in _GO_BITS.items() if mode & bit)
    return mode & 0o777 | bits | _GO_TYPES.get(stat.S_IFMT(mode), 0)


def stat_header(seen: PathStat) -> dict[str, str]:
    """What a path names, as a header."""
    text = json.dumps(
        {
            "name": seen.name,
            "size": seen.size_bytes,
            "mode": go_mode(seen.mode),
            "mtime": iso_time(seen.mtime_ns),
            "linkTarget": seen.link,
        }
    )
    return {STAT_HEADER: base64.b64encode(text.encode()).decode()}


def _need_path(path: str) -> None:
    if not path:
        raise InvalidArgument("missing path: a path in the container is needed")


@router.head("/{reference}/archive")
async def stat_path(reference: str, services: ServicesOf, path: str = "") -> Response:
    """What a path names; a link is itself."""
    _need_path(path)
    seen = await services.files.stat(reference, path)
    return Response(headers=stat_header(seen), media_type="application/json")


@router.get("/{reference}/archive")
async def get_archive(reference: str, services: ServicesOf, path: str = "") -> Response:
    """A tar of what a path names."""
    _need_path(path)

    @asynccontextmanager
    async def answer() -> AsyncIterator[Response]:
        async with services.files.reading(reference, path) as (seen, pieces):
            yield StreamingResponse(pieces, media_type=TAR, headers=stat_header(seen))

    return _WhileOpen(answer())


@router.put("/{reference}/archive")
async def put_archive(
    reference: str,
    services: ServicesOf,
    request: Request,
    path: str = "",
    noOverwriteDirNonDir: Flag = False,
    copyUIDGID: Flag = False,
) -> Response:
    """Unpack a tar in a directory."""
    _need_path(path)
    await services.files.write(
        reference,
        path,
        _chunks(request),
        keep_kinds=noOverwriteDirNonDir,
        take_user=copyUIDGID,
    )
    return Response(status_code=HTTPStatus.OK)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


@router.get("/{reference}/changes")
async def changes(reference: str, services: ServicesOf) -> list[dict[str, Any]] | None:
    """What differs from the image; null if nothing does."""
    found = await services.files.changes(reference)
    return [{"Path": each.path, "Kind": int(each.kind)} for each in found] or None


@router.get("/{reference}/export")
async def export(reference: str, services: ServicesOf) -> Response:
    """A tar of its whole file system."""

    @asynccontextmanager
    async def answer() -> AsyncIterator[Response]:
        async with services.files.exporting(reference) as pieces:
            yield StreamingResponse(pieces, media_type="application/octet-stream")

    return _WhileOpen(answer())
