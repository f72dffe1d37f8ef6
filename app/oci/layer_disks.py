"""Makes each layer's disk once, however many imports and starts ask for it at the same time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from app.domain.reference import Digest
from app.oci.layout import Layout, sync_directory
from app.oci.streams import CancelToken
from app.oci.work import Workers

Convert = Callable[[Path, CancelToken], None]


class LayerDisks:
    """The disks in `layers/`, with who makes and who needs them right now."""

    def __init__(self, layout: Layout, workers: Workers) -> None:
        self._layout = layout
        self._workers = workers
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._waiting: Counter[Digest] = Counter()
        self._pins: Counter[str] = Counter()

    async def ensure(
        self, diff_id: Digest, convert: Convert, *, staging: Path, timeout_s: float
    ) -> Path:
        """Give the layer's disk, made by `convert(target, token)` if there is none.

        Callers for the same layer wait for the first; if that fails or is cancelled, the next
        makes its own. A disk appears whole or not at all.

        Args:
            diff_id: The layer.
            convert: Writes the disk; runs in a thread.
            staging: Where it is written before it is moved into place.
            timeout_s: Deadline for `convert`.
        """
        path = self._layout.disk_path(diff_id)
        async with self._lock(diff_id):
            if not await asyncio.to_thread(path.exists):
                what = f"converting layer {diff_id.short}"
                await self._workers.run(
                    lambda token: _make(path, staging / path.name, convert, token),
                    what=what,
                    timeout_s=timeout_s,
                )
        return path

    @contextlib.asynccontextmanager
    async def _lock(self, diff_id: Digest) -> AsyncIterator[None]:
        lock = self._locks.setdefault(diff_id, asyncio.Lock())
        self._waiting[diff_id] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[diff_id] -= 1
            if not self._waiting[diff_id]:
                del self._waiting[diff_id], self._locks[diff_id]

    @contextlib.contextmanager
    def pinned(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep disks (by diff_id) and blobs (by digest) from sweeping while no image has them."""
        names = [digest.hex for digest in digests]
        self._pins.update(names)
        try:
            yield
        finally:
            self._pins.subtract(names)
            self._pins += Counter()  # drops what nobody holds

    @property
    def pins(self) -> set[str]:
        """Hex digests of all that is pinned."""
        return set(self._pins)


def _make(path: Path, temporary: Path, convert: Convert, token: CancelToken) -> None:
    temporary.unlink(missing_ok=True)
    convert(temporary, token)
    token.check()
    temporary.chmod(0o444)
    temporary.replace(path)
    sync_directory(path.parent)
