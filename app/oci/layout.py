"""The store's directory: an OCI image layout, plus one disk per layer.

    oci-layout, index.json, blobs/sha256/<hex>    OCI image-spec, image-layout.md
    layers/<diff_id hex>.sqfs                     what VMs mount; made from the blobs
    ingest/<random>/                              imports under way; emptied at start

`index.json` is the only truth: what it doesn't reach is garbage. Everything here blocks and runs
in threads; callers serialise changes.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.core.errors import CorruptData, SlipwayError
from app.domain.image import Image
from app.domain.reference import Digest, Reference
from app.oci.archive import string_map
from app.oci.archive_images import REF_NAME
from app.oci.config import (
    MEDIA_INDEX,
    Descriptor,
    digest_of,
    dump_json,
    parse_descriptor,
    parse_image_document,
    parse_manifest,
    parse_object,
)
from app.oci.limits import ImportLimits
from app.oci.work import settle

LAYER_SIZES = "io.slipway.layer-bytes"  # uncompressed sizes, comma-separated, lowest first
DIRECTORY_MODE = 0o700  # images may hold secrets; QEMU gets descriptors, not paths

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image with where its parts lie.

    Attributes:
        layers: Blob descriptors, lowest first, parallel to `image.diff_ids`.
        layer_sizes_bytes: Uncompressed sizes, likewise.
    """

    image: Image
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    layer_sizes_bytes: tuple[int, ...]

    @property
    def blobs(self) -> set[str]:
        """Hex digests of all its blobs."""
        return {item.digest.hex for item in (self.manifest, self.config, *self.layers)}

    @property
    def disks(self) -> set[str]:
        """Hex diff_ids of its layers."""
        return {diff_id.removeprefix("sha256:") for diff_id in self.image.diff_ids}


class Layout:
    """Reads and changes the directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.layers = root / "layers"
        self.ingest = root / "ingest"
        self._unreadable: list[dict[str, Any]] = []

    def blob_path(self, digest: Digest) -> Path:
        """Where that blob lies or would lie."""
        return self.blobs / digest.hex

    def disk_path(self, diff_id: Digest) -> Path:
        """Where that layer's disk lies or would lie."""
        return self.layers / f"{diff_id.hex}.sqfs"

    def prepare(self) -> None:
        """Create what is missing and throw away imports that were under way in a crash."""
        for directory in (self.root, self.blobs, self.layers, self.ingest):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for leftover in self.ingest.iterdir():
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.root.glob(".*.tmp"):
            leftover.unlink()
        marker = self.root / "oci-layout"
        if not marker.exists():
            self._replace(marker, dump_json({"imageLayoutVersion": "1.0.0"}))

    @contextlib.asynccontextmanager
    async def staging(self) -> AsyncIterator[Path]:
        """A directory for one import, gone afterwards, also after cancellation."""
        path = self.ingest / secrets.token_hex(8)
        await asyncio.to_thread(path.mkdir, 0o700)
        try:
            yield path
        finally:
            await settle(asyncio.ensure_future(asyncio.to_thread(shutil.rmtree, path, True)))

    def load(self) -> dict[str, StoredImage]:
        """Read index.json and the images it names, by id.

        An image whose blobs are damaged is left out with a warning; nothing is deleted then.

        Raises:
            CorruptData: index.json itself is unreadable.
        """
        self._unreadable = []
        path = self.root / "index.json"
        if not path.exists():
            return {}
        what = f"the image store's {path}"
        values = parse_object(path.read_bytes(), what=what).get("manifests")
        if not isinstance(values, list):
            raise CorruptData(f"{what} has no list of manifests", advice="Restore a backup.")
        images: dict[str, StoredImage] = {}
        for value in values:
            try:
                stored = self._load_image(value)
            except (SlipwayError, OSError, ValueError) as error:
                logger.warning("image left out, its files are damaged: %s", error)
                self._unreadable.append(value)
                continue
            known = images.get(stored.image.id)
            if known is not None:
                stored = with_references(
                    stored, {*known.image.references, *stored.image.references}
                )
            images[stored.image.id] = stored
        return images

    def _load_image(self, value: dict[str, Any]) -> StoredImage:
        descriptor = parse_descriptor(value, what="index.json: manifest")
        annotations = string_map(value.get("annotations"), what="index.json: annotations")
        limits = ImportLimits()
        what = f"manifest {descriptor.digest.short}"
        manifest = parse_manifest(self.read_blob(descriptor), what=what, limits=limits)
        config = self.read_blob(manifest.config)
        document = parse_image_document(config, what=f"image {manifest.config.digest.short}")
        sizes = tuple(int(text) for text in annotations.get(LAYER_SIZES, "").split(",") if text)
        name = annotations.get(REF_NAME)
        image = Image(
            id=str(manifest.config.digest),
            references=(Reference.parse(name),) if name else (),
            config=document.config,
            created=document.created,
            architecture=document.architecture,
            os=document.os,
            diff_ids=tuple(str(diff_id) for diff_id in document.diff_ids),
            size_bytes=sum(sizes),
            manifest_digest=str(descriptor.digest),
        )
        return StoredImage(image, descriptor, manifest.config, manifest.layers, sizes)

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified.

        Raises:
            CorruptData: It is not what its digest says.
        """
        data = self.blob_path(descriptor.digest).read_bytes()
        if digest_of(data) != descriptor.digest:
            raise CorruptData(f"blob {descriptor.digest} is not what its digest says")
        return data

    def save(self, images: Iterable[StoredImage]) -> None:
        """Replace index.json atomically and durably."""
        manifests = list(self._unreadable)
        for stored in sorted(images, key=lambda item: item.image.id):
            sizes = {LAYER_SIZES: ",".join(str(size) for size in stored.layer_sizes_bytes)}
            names = [{REF_NAME: str(item)} for item in stored.image.references] or [{}]
            manifests += [
                {**stored.manifest.to_json(), "annotations": {**name, **sizes}} for name in names
            ]
        document = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": manifests}
        self._replace(self.root / "index.json", json.dumps(document, indent=1).encode())

    def add_blob(self, digest: Digest, content: bytes | Path) -> None:
        """Publish a blob, verified by the caller: bytes, or a synced file that is moved in."""
        target = self.blob_path(digest)
        if target.exists():
            return
        if isinstance(content, Path):
            content.chmod(0o644)
            content.replace(target)
            sync_directory(target.parent)
        else:
            self._replace(target, content)

    def _replace(self, target: Path, data: bytes) -> None:
        temporary = self.root / f".{target.name}.tmp"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_directory(target.parent)

    def sweep(self, images: Collection[StoredImage], *, kept: Collection[str]) -> int:
        """Delete blobs and disks that no image reaches; returns the bytes given back.

        `kept` are hex digests of blobs and hex diff_ids of disks that imports under way need.
        Does nothing while an image is unreadable: what it reaches is unknown.
        """
        if self._unreadable:
            return 0
        blobs = {name for stored in images for name in stored.blobs}.union(kept)
        disks = {name for stored in images for name in stored.disks}.union(kept)
        freed = 0
        for path in self.blobs.iterdir():
            if path.name not in blobs:
                freed += _unlink(path)
        for path in self.layers.iterdir():
            if path.name.removesuffix(".sqfs") not in disks:
                freed += _unlink(path)
        return freed

    def used_bytes(self) -> int:
        """Disk space of the whole store."""
        return sum(
            path.stat().st_blocks * 512
            for directory in (self.blobs, self.layers)
            for path in directory.iterdir()
        )


def with_references(stored: StoredImage, references: Iterable[Reference]) -> StoredImage:
    """The same image under other names."""
    return replace(
        stored, image=replace(stored.image, references=tuple(sorted(references, key=str)))
    )


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> int:
    size = path.stat().st_blocks * 512
    path.unlink()
    return size
