"""Writes an archive of images in the form of `docker save` since Docker 25.

An OCI image layout with Docker's `manifest.json` beside it, so that every docker and skopeo reads
it. Blobs go in as they are stored: digests stay, and nothing is compressed again.
"""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from app.domain.reference import Digest, Reference
from app.oci.archive_images import CONTAINERD_NAME, REF_NAME
from app.oci.config import MEDIA_INDEX, dump_json
from app.oci.layout import Layout, StoredImage

CHUNK_BYTES = 1024 * 1024
BLOBS = "blobs/sha256"

Chosen = Sequence[tuple[StoredImage, Sequence[Reference]]]


async def save_archive(layout: Layout, chosen: Chosen) -> AsyncIterator[bytes]:
    """The archive piece by piece; the caller keeps the images from being removed meanwhile."""
    for name in ("blobs/", f"{BLOBS}/"):
        yield _directory(name)
    for digest in _blobs(chosen):
        async for piece in _blob(layout, digest):
            yield piece
    for name, content in _documents(chosen):
        yield _file_head(name, len(content)) + content + _padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _blobs(chosen: Chosen) -> list[Digest]:
    """Each once, in an order that depends on the images only."""
    digests: dict[Digest, None] = {}
    for stored, _ in chosen:
        for descriptor in (*stored.layers, stored.config, stored.manifest):
            digests[descriptor.digest] = None
    return list(digests)


async def _blob(layout: Layout, digest: Digest) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(layout.blob_path(digest).open, "rb")
    try:
        size_bytes = await asyncio.to_thread(file.seek, 0, io.SEEK_END)
        await asyncio.to_thread(file.seek, 0)
        yield _file_head(f"{BLOBS}/{digest.hex}", size_bytes)
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield data
        yield _padding(size_bytes)
    finally:
        await asyncio.to_thread(file.close)


def _documents(chosen: Chosen) -> Iterator[tuple[str, bytes]]:
    yield (
        "index.json",
        dump_json({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": _manifests(chosen)}),
    )
    yield (
        "manifest.json",
        dump_json(
            [
                {
                    "Config": f"{BLOBS}/{stored.config.digest.hex}",
                    "RepoTags": [reference.familiar for reference in references] or None,
                    "Layers": [f"{BLOBS}/{layer.digest.hex}" for layer in stored.layers],
                }
                for stored, references in chosen
            ]
        ),
    )
    yield "oci-layout", dump_json({"imageLayoutVersion": "1.0.0"})


def _manifests(chosen: Chosen) -> list[dict[str, Any]]:
    manifests: list[dict[str, Any]] = []
    for stored, references in chosen:
        plain = stored.manifest.to_json()
        manifests += [
            plain | {"annotations": {CONTAINERD_NAME: str(each), REF_NAME: each.tag or ""}}
            for each in references
        ] or [plain]
    return manifests


def _file_head(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _directory(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o755
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
