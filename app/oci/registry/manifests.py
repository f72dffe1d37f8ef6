"""Manifests as registries give them: which media types, and which of an index fits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.core.errors import CorruptData, InvalidArgument
from app.domain.reference import Digest, Reference
from app.domain.registry import Platform, RegistryLacks
from app.oci.config import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    parse_descriptor,
    parse_object,
)

SCHEMA1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
ACCEPTED = ", ".join((MEDIA_MANIFEST, DOCKER_MANIFEST, MEDIA_INDEX, DOCKER_LIST, *SCHEMA1_TYPES))
ENTRIES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, verified.

    Attributes:
        descriptor: Its media type, digest and size.
        value: What it says.
    """

    descriptor: Descriptor
    data: bytes
    value: dict[str, Any]

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests by platform."""
        return self.descriptor.media_type in INDEX_TYPES


def read_document(data: bytes, digest: Digest, stated_type: str, reference: Reference) -> Document:
    """Tell what a registry gave by its own words, or by the header.

    Raises:
        CorruptData: It is no JSON.
        InvalidArgument: Docker's old form.
    """
    what = f"the manifest of {reference.familiar}"
    value = parse_object(data, what=what)
    media_type = value.get("mediaType") or stated_type.partition(";")[0].strip().lower()
    if media_type in SCHEMA1_TYPES or value.get("schemaVersion") == 1:
        raise InvalidArgument(_SCHEMA1.format(reference))
    if media_type not in (*INDEX_TYPES, *MANIFEST_TYPES):
        media_type = MEDIA_INDEX if isinstance(value.get("manifests"), list) else MEDIA_MANIFEST
    return Document(Descriptor(media_type, digest, len(data)), data, value)


_SCHEMA1 = (
    "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 "
    "support is disabled by default and will be removed in an upcoming release. Suggest the "
    "author of {} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
    "More information at https://docs.docker.com/go/deprecated-image-specs/"
)


def platforms(index: Document) -> list[tuple[Platform, Descriptor]]:
    """What an index offers, in its order; what is no image (attestations) is left out.

    Raises:
        CorruptData: It is malformed.
    """
    entries = index.value.get("manifests")
    if not isinstance(entries, list) or len(entries) > ENTRIES_MAX:
        raise CorruptData("the index has no list of manifests, or one without end")
    return list(_offered(entries))


def _offered(entries: list[Any]) -> Iterable[tuple[Platform, Descriptor]]:
    for entry in entries:
        descriptor = parse_descriptor(entry, what="the index's entry")
        platform = entry.get("platform")
        if not isinstance(platform, dict):
            continue
        texts = [platform.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(text, str) for text in texts) or texts[0] in ("", "unknown"):
            continue
        try:
            found = Platform.parse(
                "/".join(text for text in texts if text), default_architecture="unknown"
            )
        except InvalidArgument:
            continue
        yield found, descriptor


def choose(index: Document, wanted: Platform) -> Descriptor:
    """The manifest for a platform: the same variant, else the lowest (the first offered).

    Raises:
        RegistryLacks: None fits; in Docker's words.
    """
    fitting = [
        (platform, descriptor)
        for platform, descriptor in platforms(index)
        if (platform.os, platform.architecture) == (wanted.os, wanted.architecture)
        and platform.variant in {"", wanted.variant}
    ]
    for platform, descriptor in fitting:
        if platform.variant == wanted.variant:
            return descriptor
    if fitting:
        return fitting[0][1]
    raise RegistryLacks(f"no matching manifest for {wanted} in the manifest list entries")
