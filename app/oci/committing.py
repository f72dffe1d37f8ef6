"""An image made of another one and a layer on top of it: `docker commit`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.core.errors import CorruptData
from app.domain.image import Image, ImageConfig, ImportProgress
from app.domain.reference import Digest, Reference
from app.oci.config import (
    MEDIA_CONFIG,
    Descriptor,
    digest_of,
    dump_json,
    make_manifest,
    parse_image_document,
)
from app.oci.importer import PreparedImage, PreparedLayer
from app.oci.intake import Intake
from app.oci.store import ImageStore


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """What the new image is to be.

    Attributes:
        parent_id: What it is made on.
        created_by: The command that made the layer, for the history.
        on_build: Instructions for builds from the image.
    """

    config: ImageConfig
    parent_id: str
    author: str = ""
    comment: str = ""
    created_by: str = ""
    on_build: Sequence[str] = field(default_factory=tuple)
    reference: Reference | None = None


async def commit_image(
    store: ImageStore, base: Image, layer: AsyncIterator[bytes], options: CommitOptions
) -> Image:
    """Make an image of `base` and a plain tar of a layer, which may be empty.

    All or nothing: after an error or cancellation the store is as before.

    Raises:
        ImageNotFound: The base is gone.
        CorruptData, InvalidArgument: It is no layer.
        ResourceExhausted: The disk is full.
    """
    document = (await store.document(base)).json
    async with store.lease(base.id), store.intake() as intake:
        below = await _layers_of(store, intake, base)
        importer = store.importer(intake, _ignore)
        own = await importer.prepare_layer(layer, what="the container's layer")
        layers = [*below, *([own] if own is not None else [])]
        config = dump_json(_document(document, layers, options, is_empty=own is None))
        descriptor = Descriptor(MEDIA_CONFIG, digest_of(config), len(config))
        image = PreparedImage(
            references=(options.reference,) if options.reference is not None else (),
            document=parse_image_document(config, what="image"),
            config=config,
            manifest=make_manifest(descriptor, [each.descriptor for each in layers]),
            layers=tuple(layers),
        )
        return (await intake.publish([image]))[0]


async def _layers_of(store: ImageStore, intake: Intake, base: Image) -> list[PreparedLayer]:
    stored = store.stored(base)
    layers = []
    for diff_id, descriptor in zip(base.diff_ids, stored.layers, strict=True):
        layer = await intake.reuse(Digest.parse(diff_id), descriptor.digest)
        if layer is None:
            raise CorruptData(
                f"layer {diff_id} of image {base.short_id} is lost", advice="Import it again."
            )
        layers.append(layer)
    return layers


def _document(
    base: Mapping[str, Any],
    layers: Sequence[PreparedLayer],
    options: CommitOptions,
    *,
    is_empty: bool,
) -> dict[str, Any]:
    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    step: dict[str, Any] = {"created": created, "created_by": options.created_by}
    if options.author:
        step["author"] = options.author
    if options.comment:
        step["comment"] = options.comment
    if is_empty:
        step["empty_layer"] = True
    config = options.config.to_json()
    if options.on_build:
        config["OnBuild"] = list(options.on_build)
    # `parent` is no word of OCI's: Docker shows it of images that were made here.
    document: dict[str, Any] = {"created": created, "parent": options.parent_id}
    if options.author:
        document["author"] = options.author
    if options.comment:
        document["comment"] = options.comment
    for key in ("architecture", "variant", "os", "os.version", "os.features"):
        if key in base:
            document[key] = base[key]
    return document | {
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [str(each.diff_id) for each in layers]},
        "history": [*_history(base), step],
    }


def _history(base: Mapping[str, Any]) -> list[Any]:
    """The base's, with a step for each layer that came without one: they belong to each other."""
    history, rootfs = base.get("history"), base.get("rootfs")
    steps = history if isinstance(history, list) else []
    layers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    told = sum(1 for each in steps if isinstance(each, dict) and not each.get("empty_layer"))
    missing = len(layers) - told if isinstance(layers, list) else 0
    created = {"created": base["created"]} if "created" in base else {}
    return [created] * missing + steps


def _ignore(_: ImportProgress) -> None:
    """Progress that nobody sees."""
