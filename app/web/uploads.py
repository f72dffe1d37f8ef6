"""Reading an upload as it arrives: nothing of it is kept in memory or in a temporary file.

The page's script sends the bare file with the CSRF token in a header; without JavaScript a form
sends multipart/form-data whose last field is the file; its other fields are checked before it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.core.errors import InvalidArgument

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_LIMIT_BYTES = 4096
FIELDS_LIMIT = 10


@dataclass
class _Part:
    """One part of a multipart body while it is read."""

    name: str = ""
    is_file: bool = False
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


class MultipartUpload:
    """Fields first, then the file's bytes; refuses what comes in another order."""

    def __init__(self, request: Request) -> None:
        content_type, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if content_type != b"multipart/form-data" or not boundary:
            raise InvalidArgument("The upload is not a form with a file")
        self.fields: dict[str, str] = {}
        self._stream = request.stream()
        self._part = _Part()
        self._file_chunks: list[bytes] = []
        self._in_file = False
        self._file_done = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    async def read_fields(self) -> dict[str, str]:
        """Read until the file begins.

        Raises:
            InvalidArgument: There is no file, or the form is damaged or too large.
        """
        while not self._in_file:
            if not await self._feed():
                raise InvalidArgument(
                    "No file was chosen", field="file", advice="Choose a tar file first."
                )
        return self.fields

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes; call after `read_fields`.

        Raises:
            InvalidArgument: The connection ended inside the file.
        """
        while True:
            pending, self._file_chunks = self._file_chunks, []
            for chunk in pending:
                yield chunk
            if self._file_done:
                return
            if not await self._feed():
                raise InvalidArgument("The upload ended before its file did")

    async def _feed(self) -> bool:
        async for chunk in self._stream:
            if chunk:
                try:
                    self._parser.write(chunk)
                except MultipartParseError as error:
                    raise InvalidArgument(f"The upload's form is damaged: {error}") from error
                return True
        return False

    def _on_part_begin(self) -> None:
        if self._in_file or len(self.fields) >= FIELDS_LIMIT:
            raise InvalidArgument("The upload's form has fields after its file, or too many")
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]
        self._check_size(self._part.header_name)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]
        self._check_size(self._part.header_value)

    def _on_header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._part.header_value))
            self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
            self._part.is_file = b"filename" in options
        self._part.header_name.clear()
        self._part.header_value.clear()

    def _on_headers_finished(self) -> None:
        self._in_file = self._part.is_file

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file_chunks.append(data[start:end])
            return
        self._part.value += data[start:end]
        self._check_size(self._part.value)

    def _on_part_end(self) -> None:
        if self._in_file:
            self._file_done = True
        else:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace").strip()

    def _check_size(self, value: bytearray) -> None:
        if len(value) > FIELD_LIMIT_BYTES:
            raise InvalidArgument("A field of the upload's form is too long")
