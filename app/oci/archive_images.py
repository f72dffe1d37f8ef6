"""Reads what an image archive says about its images: names, configurations, layers.

Nothing of a layer is read here. What the archive states (sizes, digests) is checked as far as
JSON documents go; layers are verified when they are read.
"""

from dataclasses import dataclass, replace

from app.core.errors import CorruptData, InvalidArgument, Unsupported
from app.domain.reference import Digest, Reference, shown
from app.oci.archive import (
    DOCKER_MANIFEST_NAME,
    OCI_INDEX_NAME,
    OCI_LAYOUT_NAME,
    ArchiveIndex,
    Member,
    string_list,
    string_map,
)
from app.oci.config import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    ImageDocument,
    check_layer_count,
    digest_of,
    parse_descriptor,
    parse_image_document,
    parse_json,
    parse_manifest,
    parse_object,
)

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"  # the full name in archives by Docker 25 and later
ATTESTATION = "vnd.docker.reference.type"
INDEX_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class ArchiveLayer:
    """A layer to be read.

    Attributes:
        diff_id: What its uncompressed bytes must hash to.
        blob_digest: What its bytes in the archive must hash to, where the archive says.
    """

    member: Member
    diff_id: Digest
    blob_digest: Digest | None


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image in an archive.

    Attributes:
        config: The configuration's bytes, whose digest is the image's id.
        manifest: An OCI archive's own manifest, kept byte for byte; else None.
        layers: Lowest first.
    """

    id: Digest
    references: tuple[Reference, ...]
    document: ImageDocument
    config: bytes
    manifest: bytes | None
    layers: tuple[ArchiveLayer, ...]


def read_images(index: ArchiveIndex, *, architecture: str) -> list[ArchiveImage]:
    """Find every image.

    Args:
        index: The archive.
        architecture: In Go's spelling; chooses within multi-platform images.

    Raises:
        CorruptData: Documents are missing, malformed or contradict each other.
        InvalidArgument: Too many images or layers, or a name that is no reference.
        Unsupported: No image for this machine, or something that is no image.
    """
    index.check_usable()
    images: dict[Digest, ArchiveImage] = {}
    if OCI_LAYOUT_NAME in index.members and OCI_INDEX_NAME in index.members:
        for image in _read_oci(index, architecture):
            _merge(images, image)
    if DOCKER_MANIFEST_NAME in index.members:
        for image in _read_docker(index):
            _merge(images, image)
    if not images:
        raise CorruptData("the archive holds no image")
    return list(images.values())


def _merge(images: dict[Digest, ArchiveImage], image: ArchiveImage) -> None:
    known = images.get(image.id)
    if known is not None:
        references = tuple(dict.fromkeys(known.references + image.references))
        image = replace(known, references=references)
    images[image.id] = image


def _read_oci(index: ArchiveIndex, architecture: str) -> list[ArchiveImage]:
    top = parse_object(index.read_small(OCI_INDEX_NAME), what=OCI_INDEX_NAME)
    has_docker_names = DOCKER_MANIFEST_NAME in index.members
    images = []
    for value in _manifest_list(index, top, OCI_INDEX_NAME):
        if _is_attestation(value):
            continue
        annotations = string_map(value.get("annotations"), what="index.json: annotations")
        name = annotations.get(CONTAINERD_NAME)
        if name is None and not has_docker_names:
            name = annotations.get(REF_NAME)
        references = (Reference.parse(name),) if name is not None else ()
        manifest = _choose_manifest(index, value, architecture, INDEX_DEPTH_MAX)
        images.append(_read_oci_image(index, manifest, references))
    return images


def _manifest_list(
    index: ArchiveIndex, document: dict[str, object], what: str
) -> list[dict[str, object]]:
    values = document.get("manifests")
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise CorruptData(f"{what} has no list of manifests")
    if len(values) > index.limits.images:
        raise InvalidArgument(
            f"{what} lists {len(values):,} manifests; at most {index.limits.images} are imported"
        )
    return values


def _is_attestation(value: dict[str, object]) -> bool:
    annotations, platform = value.get("annotations"), value.get("platform")
    return (isinstance(annotations, dict) and ATTESTATION in annotations) or (
        isinstance(platform, dict) and platform.get("os") == "unknown"
    )


def _choose_manifest(
    index: ArchiveIndex, value: dict[str, object], architecture: str, depth: int
) -> Descriptor:
    """Follow indexes down to the manifest for this machine."""
    descriptor = parse_descriptor(value, what="index.json: manifest")
    if descriptor.media_type in MANIFEST_TYPES:
        return descriptor
    if descriptor.media_type not in INDEX_TYPES:
        raise Unsupported(f"the archive holds {shown(descriptor.media_type)}, which is no image")
    if depth == 0:
        raise CorruptData("the archive's indexes are nested too deeply")
    what = f"index {descriptor.digest.short}"
    document = parse_object(_read_blob(index, descriptor), what=what)
    choices = [item for item in _manifest_list(index, document, what) if not _is_attestation(item)]
    for item in choices:
        platform = item.get("platform")
        if isinstance(platform, dict) and (
            (platform.get("os"), platform.get("architecture")) == ("linux", architecture)
        ):
            return _choose_manifest(index, item, architecture, depth - 1)
    if len(choices) == 1 and "platform" not in choices[0]:
        return _choose_manifest(index, choices[0], architecture, depth - 1)
    raise Unsupported(
        f"{what} has no image for linux/{architecture}",
        advice="Save the image for this machine's platform.",
    )


def _read_blob(index: ArchiveIndex, descriptor: Descriptor) -> bytes:
    data = index.read_small(f"blobs/sha256/{descriptor.digest.hex}")
    if len(data) != descriptor.size_bytes or digest_of(data) != descriptor.digest:
        raise CorruptData(
            f"the archive's blob {descriptor.digest} is not what its digest says",
            advice="The archive was damaged or changed; save the image again.",
        )
    return data


def _read_oci_image(
    index: ArchiveIndex, descriptor: Descriptor, references: tuple[Reference, ...]
) -> ArchiveImage:
    what = f"manifest {descriptor.digest.short}"
    data = _read_blob(index, descriptor)
    manifest = parse_manifest(data, what=what, limits=index.limits)
    config = _read_blob(index, manifest.config)
    document = parse_image_document(config, what=f"image {manifest.config.digest.short}")
    members = [_layer_member(index, f"blobs/sha256/{d.digest.hex}") for d in manifest.layers]
    for member, layer in zip(members, manifest.layers, strict=True):
        if member.size_bytes != layer.size_bytes:
            raise CorruptData(f"layer {layer.digest.short} is not as long as {what} says")
    digests = [layer.digest for layer in manifest.layers]
    layers = _pair_layers(members, list(digests), document, what)
    return ArchiveImage(manifest.config.digest, references, document, config, data, layers)


def _read_docker(index: ArchiveIndex) -> list[ArchiveImage]:
    items = parse_json(index.read_small(DOCKER_MANIFEST_NAME), what=DOCKER_MANIFEST_NAME)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CorruptData("manifest.json is not a list of images")
    if len(items) > index.limits.images:
        raise InvalidArgument(f"manifest.json lists {len(items):,} images, too many")
    return [_read_docker_image(index, item) for item in items]


def _read_docker_image(index: ArchiveIndex, item: dict[str, object]) -> ArchiveImage:
    config_name = item.get("Config")
    if not isinstance(config_name, str):
        raise CorruptData("manifest.json has an image without Config")
    names = string_list(item.get("Layers"), what="manifest.json: Layers")
    check_layer_count(len(names), what=f"image {shown(config_name)}", limits=index.limits)
    config = index.read_small(config_name)
    image_id = digest_of(config)
    stated = config_name.removeprefix("blobs/sha256/").removesuffix(".json")
    if len(stated) == 64 and stated != image_id.hex:
        raise CorruptData(
            f"the archive's configuration {shown(config_name)} is not what its digest says",
            advice="The archive was damaged or changed; save the image again.",
        )
    what = f"image {image_id.short}"
    document = parse_image_document(config, what=what)
    tags = string_list(item.get("RepoTags"), what="manifest.json: RepoTags")
    members = [_layer_member(index, name) for name in names]
    digests = [_stated_digest(name) for name in names]
    layers = _pair_layers(members, digests, document, what)
    references = tuple(Reference.parse(tag) for tag in tags)
    return ArchiveImage(image_id, references, document, config, None, layers)


def _stated_digest(name: str) -> Digest | None:
    """The digest in a new-form member name; old forms name layers by other ids."""
    directory, _, base = name.rpartition("/")
    return Digest.parse(f"sha256:{base}") if directory == "blobs/sha256" else None


def _layer_member(index: ArchiveIndex, name: str) -> Member:
    member = index.find(name)
    if member is None:
        raise CorruptData(
            f"the archive lacks the layer {shown(name)}, which it refers to",
            advice="The archive is incomplete; save the image again.",
        )
    return member


def _pair_layers(
    members: list[Member],
    digests: list[Digest | None],
    document: ImageDocument,
    what: str,
) -> tuple[ArchiveLayer, ...]:
    if len(members) != len(document.diff_ids):
        raise CorruptData(
            f"{what} has {len(members)} layers, but its configuration "
            f"lists {len(document.diff_ids)} diff_ids"
        )
    triples = zip(members, document.diff_ids, digests, strict=True)
    return tuple(ArchiveLayer(member, diff_id, digest) for member, diff_id, digest in triples)
