"""Byte sources that the import pipeline is stacked from: ranges, hashing, limits, cancellation.

Everything here is synchronous and runs in worker threads (see `app.oci.work`). No source ever
holds more than one chunk.
"""

import hashlib
import threading
from collections.abc import Callable
from typing import BinaryIO, Protocol

from app.core.errors import InvalidArgument
from app.core.units import MIB
from app.domain.reference import Digest

CHUNK_BYTES = MIB


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, fewer only for want of more right now; empty at the end."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


class ImportCancelled(Exception):
    """Unwinds a worker thread whose caller has gone; never leaves `app.oci.work`."""


class CancelToken:
    """Tells a worker thread that nobody waits for it any more.

    `on_cancel` callbacks run in the cancelling thread (to kill a child process that the worker is
    blocked on); they must not block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._hooks: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """Make every further `check()` raise, and run the hooks once. Idempotent."""
        with self._lock:
            hooks, self._hooks = self._hooks, []
            self._cancelled = True
        for hook in hooks:
            hook()

    def on_cancel(self, hook: Callable[[], None]) -> None:
        """Run `hook` at cancellation; at once if it has happened already."""
        with self._lock:
            if not self._cancelled:
                self._hooks.append(hook)
                return
        hook()

    def check(self) -> None:
        """Raise ImportCancelled after cancellation."""
        if self._cancelled:
            raise ImportCancelled


class FileRange:
    """A part of a seekable file as a source of its own; skipping costs nothing."""

    def __init__(self, file: BinaryIO, offset: int, size_bytes: int) -> None:
        self._file = file
        self._position = offset
        self._end = offset + size_bytes

    def read(self, size: int, /) -> bytes:
        """Bytes of the range; short if the file itself is shorter."""
        wanted = min(size, self._end - self._position)
        if wanted <= 0:
            return b""
        self._file.seek(self._position)
        data = self._file.read(wanted)
        self._position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Move on without reading; returns how far the range went."""
        step = min(size, self._end - self._position)
        self._position += step
        return step


class HashingSource:
    """Passes bytes through, counting and hashing them, and copying them to `tee` if given.

    Args:
        source: Where bytes come from.
        digest: What all bytes are known to hash to; then they aren't hashed (hashing is most of
            an import's work).
        limit_bytes: More than that raises InvalidArgument naming `what` (None: no limit).
        on_bytes: Called with the running count after each read.
    """

    def __init__(
        self,
        source: Source,
        *,
        token: CancelToken,
        what: str,
        digest: Digest | None = None,
        tee: Sink | None = None,
        limit_bytes: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._source = source
        self._token = token
        self._what = what
        self._tee = tee
        self._limit_bytes = limit_bytes
        self._on_bytes = on_bytes
        self._known = digest
        self._hash = hashlib.sha256()
        self.count_bytes = 0

    def read(self, size: int, /) -> bytes:
        """As the wrapped source.

        Raises:
            InvalidArgument: The limit is passed.
            ImportCancelled: Nobody waits any more.
        """
        self._token.check()
        data = self._source.read(size)
        if self._known is None:
            self._hash.update(data)
        self.count_bytes += len(data)
        if self._limit_bytes is not None and self.count_bytes > self._limit_bytes:
            raise InvalidArgument(
                f"{self._what} expands to more than {self._limit_bytes:,} bytes and was refused",
                advice="If the content is wanted, raise the import limit.",
            )
        if self._tee is not None:
            self._tee.write(data)
        if self._on_bytes is not None:
            self._on_bytes(self.count_bytes)
        return data

    def drain(self) -> Digest:
        """Read to the end and give the digest of everything."""
        while self.read(CHUNK_BYTES):
            pass
        return self.digest

    @property
    def digest(self) -> Digest:
        """Digest of the bytes so far, or the one known for all of them."""
        if self._known is not None:
            return self._known
        return Digest(self._hash.hexdigest())
