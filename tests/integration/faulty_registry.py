"""A registry that misbehaves as told, and a token server: plain HTTP, a request a connection."""

import asyncio
import base64
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.integration.registry_lab import OCI_INDEX, SampleImage
from tests.unit.oci.archives import sha256

TLS_HELLO = b"\x16"  # who tries TLS first goes


@dataclass(frozen=True)
class Request:
    """What came; header names in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


Fault = Callable[["FaultyRegistry", Request, StreamWriter], Coroutine[None, None, bool]]


@dataclass
class FaultyRegistry:
    """Serves what it was given, unless a fault says otherwise.

    Attributes:
        faults: By path: each is used once, in order; it answers, or returns False to let it be.
        tokens: What a bearer must be; None lets everybody in.
        realm: Where tokens are to be had.
    """

    host: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    tokens: set[str] | None = None
    realm: str = ""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def add(self, name: str, tag: str, image: SampleImage) -> None:
        """Have an image."""
        for key in (tag, image.digest):
            self.manifests[f"{name}/manifests/{key}"] = (image.media_type, image.manifest)
        for digest, data in image.blobs.items():
            self.blobs[f"{name}/blobs/{digest}"] = data

    def add_index(self, name: str, tag: str, index: bytes) -> None:
        """Have an index."""
        for key in (tag, sha256(index)):
            self.manifests[f"{name}/manifests/{key}"] = (OCI_INDEX, index)

    def fail(self, path: str, *faults: Fault) -> None:
        """Misbehave on the next requests for `name/blobs/digest` or `name/manifests/tag`."""
        self.faults.setdefault(path, []).extend(faults)

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """Requests so far."""
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    async def until_asked(self, path: str, count: int = 1) -> None:
        """Wait for that many requests."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: len(self.asked(path)) >= count)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection."""
        try:
            request = await _read(reader)
            async with self.changed:
                self.requests.append(request)
                self.changed.notify_all()
            await self._answer(request, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: StreamWriter) -> None:
        key = request.path.removeprefix("/v2/")
        waiting = self.faults.get(key, [])
        if waiting and await waiting.pop(0)(self, request, writer):
            return
        if self.tokens is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if given not in self.tokens:
                scope = f"repository:{key.partition('/')[0]}:pull"
                named = f'Bearer realm="{self.realm}",service="test",scope="{scope}"'
                answer(writer, 401, _errors("UNAUTHORIZED"), {"WWW-Authenticate": named})
                return
        if key in self.manifests:
            media_type, data = self.manifests[key]
            answer(writer, 200, data, {"Content-Type": media_type})
        elif key in self.blobs:
            _blob(writer, request, self.blobs[key])
        elif key == "":
            answer(writer, 200, b"{}")
        else:
            answer(writer, 404, _errors("MANIFEST_UNKNOWN"))


async def _read(reader: StreamReader) -> Request:
    first_byte = await reader.readexactly(1)
    if first_byte == TLS_HELLO:
        raise ConnectionAbortedError
    head = (first_byte + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, parse_qs(parts.query), headers, body)


def answer(
    writer: StreamWriter, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    """Write an answer."""
    fields = {"Content-Length": str(len(body)), "Connection": "close"} | (headers or {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)


def _errors(code: str) -> bytes:
    text = code.lower().replace("_", " ")
    return json.dumps({"errors": [{"code": code, "message": text}]}).encode()


def _blob(writer: StreamWriter, request: Request, data: bytes) -> None:
    asked = request.headers.get("range", "")
    if not asked:
        answer(writer, 200, data)
        return
    first = int(asked.removeprefix("bytes=").removesuffix("-"))
    named = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
    answer(writer, 206, data[first:], named)


def cut_after(count: int) -> Fault:
    """Begin the blob from where it is asked, and break the connection."""

    async def fault(registry: FaultyRegistry, request: Request, writer: StreamWriter) -> bool:
        data = registry.blobs[request.path.removeprefix("/v2/")]
        asked = request.headers.get("range", "bytes=0-")
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
        named = {"Content-Length": str(len(data) - first)}
        if first:
            named["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        answer(writer, 206 if first else 200, data[first : first + count], named)
        return True

    return fault


def stall_after(count: int, until: asyncio.Event) -> Fault:
    """Begin the blob and wait with the rest."""

    async def fault(registry: FaultyRegistry, request: Request, writer: StreamWriter) -> bool:
        data = registry.blobs[request.path.removeprefix("/v2/")]
        answer(writer, 200, data[:count], {"Content-Length": str(len(data))})
        await writer.drain()
        await until.wait()
        writer.write(data[count:])
        return True

    return fault


def says(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer something else; header names with underscores for dashes."""

    async def fault(_: FaultyRegistry, __: Request, writer: StreamWriter) -> bool:
        answer(writer, status, body, {key.replace("_", "-"): text for key, text in headers.items()})
        return True

    return fault


def sends(data: bytes) -> Fault:
    """Send other bytes than asked for, whatever the range."""
    return says(200, data)


async def endless(_: FaultyRegistry, __: Request, writer: StreamWriter) -> bool:
    """A body that doesn't end."""
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        await writer.drain()


@dataclass
class TokenServer:
    """Gives tokens as told.

    Attributes:
        tokens: What it gives, in order; the last one again and again.
        refuses: Whether it knows nobody.
    """

    tokens: list[dict[str, object]]
    realm: str = ""
    refuses: bool = False
    requests: list[Request] = field(default_factory=list)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection."""
        request = await _read(reader)
        self.requests.append(request)
        if self.refuses:
            answer(writer, 401)
        else:
            given = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
            answer(writer, 200, json.dumps(given).encode())
        await writer.drain()
        writer.close()

    @property
    def users(self) -> list[str]:
        """`name:password` of each request."""
        texts = [each.headers.get("authorization", "") for each in self.requests]
        return [base64.b64decode(text.removeprefix("Basic ")).decode() for text in texts]


@asynccontextmanager
async def faulty_registry() -> AsyncIterator[FaultyRegistry]:
    """Run one on a free port."""
    registry = FaultyRegistry()
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    async with _closing(server) as port:
        registry.host = f"127.0.0.1:{port}"
        yield registry


@asynccontextmanager
async def token_server(*tokens: dict[str, object]) -> AsyncIterator[TokenServer]:
    """Run one on a free port."""
    given = TokenServer(list(tokens))
    server = await asyncio.start_server(given.serve, "127.0.0.1", 0)
    async with _closing(server) as port:
        given.realm = f"http://127.0.0.1:{port}/token"
        yield given


@asynccontextmanager
async def _closing(server: asyncio.Server) -> AsyncIterator[int]:
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if hasattr(server, "close_clients"):
            server.close_clients()
