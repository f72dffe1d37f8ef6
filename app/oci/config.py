"""Reads and writes the JSON documents of an image: configuration, manifest, descriptors.

Source: OCI image-spec, config.md, manifest.md, descriptor.md; Docker's schema 2 where it differs
in media types only.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.core.errors import CorruptData, InvalidArgument, Unsupported
from app.domain.image import ImageConfig
from app.domain.reference import Digest, shown
from app.oci.compression import Compression
from app.oci.limits import ImportLimits

MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

CONFIG_TYPES = (MEDIA_CONFIG, DOCKER_CONFIG)
MANIFEST_TYPES = (MEDIA_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (MEDIA_INDEX, DOCKER_LIST)
MAX_DESCRIPTOR_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points to a blob (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Wire form."""
        return {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's manifest."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageDocument:
    """What an image configuration says."""

    config: ImageConfig
    created: datetime | None
    architecture: str
    os: str
    diff_ids: tuple[Digest, ...]


def parse_object(data: bytes, *, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptData: Not JSON, too deep, or no object.
    """
    value = parse_json(data, what=what)
    if not isinstance(value, dict):
        raise CorruptData(f"{what} is not a JSON object")
    return value


def parse_json(data: bytes, *, what: str) -> Any:  # noqa: ANN401 (that is what JSON is)
    """Read JSON.

    Raises:
        CorruptData: Not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{what} is not JSON: {str(error)[:200]}") from error


def dump_json(value: object) -> bytes:
    """Compact JSON with keys in the given order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(data: bytes) -> Digest:
    """Sha256 of bytes at hand."""
    return Digest(hashlib.sha256(data).hexdigest())


def parse_descriptor(value: object, *, what: str) -> Descriptor:
    """Read a descriptor.

    Raises:
        CorruptData: Missing or malformed fields.
    """
    if not isinstance(value, dict):
        raise CorruptData(f"{what} is not a descriptor")
    size, media_type = value.get("size"), value.get("mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_DESCRIPTOR_BYTES:
        raise CorruptData(f"{what} has the impossible size {shown(size)}")
    if not isinstance(media_type, str):
        raise CorruptData(f"{what} has no media type")
    return Descriptor(media_type, Digest.parse(value.get("digest"), what=f"{what}: digest"), size)


def parse_manifest(data: bytes, *, what: str, limits: ImportLimits) -> Manifest:
    """Read an image manifest.

    Raises:
        CorruptData: Malformed.
        InvalidArgument: Too many layers.
        Unsupported: Not an image (another kind of artifact).
    """
    value = parse_object(data, what=what)
    if value.get("schemaVersion") != 2:
        raise Unsupported(
            f"{what} has schema version {shown(value.get('schemaVersion'))}; only 2 is supported",
            advice="Save the image again with a current tool.",
        )
    config = parse_descriptor(value.get("config"), what=f"{what}: config")
    if config.media_type not in CONFIG_TYPES:
        raise Unsupported(f"{what} is no container image but {shown(config.media_type)}")
    layers = value.get("layers")
    if not isinstance(layers, list):
        raise CorruptData(f"{what} has no list of layers")
    check_layer_count(len(layers), what=what, limits=limits)
    media_type = value.get("mediaType")
    return Manifest(
        media_type if media_type in MANIFEST_TYPES else MEDIA_MANIFEST,
        config,
        tuple(
            parse_descriptor(layer, what=f"{what}: layer {number}")
            for number, layer in enumerate(layers, start=1)
        ),
    )


def check_layer_count(count: int, *, what: str, limits: ImportLimits) -> None:
    """Refuse an image without layers or with more than can be mounted."""
    if count == 0:
        raise InvalidArgument(f"{what} has no layers, so nothing to run")
    if count > limits.layers:
        raise InvalidArgument(
            f"{what} has {count:,} layers; at most {limits.layers} can be mounted",
            advice="Squash the image (e.g. docker export and import) and try again.",
        )


def parse_image_document(data: bytes, *, what: str) -> ImageDocument:
    """Read an image configuration.

    Raises:
        CorruptData: Malformed.
        Unsupported: Not for Linux.
    """
    value = parse_object(data, what=what)
    system, architecture = value.get("os") or "linux", value.get("architecture") or "amd64"
    if not isinstance(system, str) or not isinstance(architecture, str):
        raise CorruptData(f"{what} has a platform that is no text")
    if system != "linux":
        raise Unsupported(f"{what} is for {shown(system)}; Slipway runs Linux images")
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list):
        raise CorruptData(f"{what} has no list of diff_ids")
    return ImageDocument(
        config=ImageConfig.from_json(value.get("config")),
        created=_parse_created(value.get("created")),
        architecture=architecture[:64],
        os=system,
        diff_ids=tuple(Digest.parse(item, what=f"{what}: diff_id") for item in diff_ids),
    )


def _parse_created(value: object) -> datetime | None:
    """RFC 3339 with up to nanoseconds; None for what can't be read (it is for display only)."""
    if not isinstance(value, str):
        return None
    try:
        created = datetime.fromisoformat(value)
    except ValueError:
        return None
    return created.astimezone(UTC) if created.tzinfo is not None else created.replace(tzinfo=UTC)


def make_image_document(
    config: ImageConfig,
    *,
    created: datetime | None,
    architecture: str,
    diff_ids: list[Digest],
    comment: str = "",
) -> bytes:
    """Write a configuration for layers that came without one; a comment goes into the history."""
    document: dict[str, Any] = {}
    if created is not None:
        document["created"] = created.astimezone(UTC).isoformat().replace("+00:00", "Z")
    document |= {
        "architecture": architecture,
        "os": "linux",
        "config": config.to_json(),
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
    }
    if comment:
        step = {"created": document["created"]} if created is not None else {}
        document["history"] = [step | {"comment": comment}]
    return dump_json(document)


def make_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """Write an OCI manifest."""
    return dump_json(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def layer_media_type(compression: Compression) -> str:
    """OCI's media type; xz and bzip2 have none of their own there, but are spelt likewise."""
    return f"{MEDIA_LAYER}+{compression}" if compression else MEDIA_LAYER
