"""HTTP by hand, for what client libraries would not send or would hide."""

import asyncio
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass
from urllib.parse import urlsplit

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Answer:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def read_head(reader: StreamReader) -> Answer:
    """Read an answer's head."""
    async with asyncio.timeout(DEADLINE_S):
        head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in rest if line)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, b"")


class RawHttp:
    """One request per connection to a `unix://` or `tcp://` address."""

    def __init__(self, host: str) -> None:
        self._url = urlsplit(host)
        self.address = self._url.netloc

    async def open(self) -> tuple[StreamReader, StreamWriter]:
        """Connect."""
        if self._url.scheme == "unix":
            return await asyncio.open_unix_connection(self._url.path)
        return await asyncio.open_connection(self._url.hostname, self._url.port)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes:
        """The bytes of a request."""
        fields = {"Host": self.address or "docker", **(headers or {})}
        if body or method == "POST":
            fields["Content-Length"] = str(len(body))
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def exchange(self, request: bytes) -> bytes:
        """Send bytes, read all that comes until the other end closes."""
        reader, writer = await self.open()
        try:
            writer.write(request)
            async with asyncio.timeout(DEADLINE_S):
                return await reader.read()
        finally:
            writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask and read the whole answer."""
        fields = {"Connection": "close", **(headers or {})}
        raw = await self.exchange(self.request(method, path, body, fields))
        reader = StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        head = await read_head(reader)
        rest = await reader.read()
        if head.headers.get("transfer-encoding") == "chunked":
            rest = _unchunk(rest)
        return Answer(head.status, head.headers, rest)


def _unchunk(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2 :]
    return whole
