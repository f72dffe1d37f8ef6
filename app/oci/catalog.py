"""Which images there are: the state behind the store, changed by one caller at a time.

Blocks; the store calls it in threads, under its lock. Reads may happen meanwhile: a change
replaces the whole mapping at its end, after index.json is on disk.
"""

from collections.abc import Collection

from app.domain.image import Image, ImageNotFound, ImageRemoval, ImageUser
from app.domain.reference import Digest, Reference
from app.oci.config import Descriptor, digest_of, parse_manifest
from app.oci.importer import KnownLayer, PreparedImage
from app.oci.layout import Layout, StoredImage, with_references
from app.oci.limits import ImportLimits
from app.oci.lookup import find_image
from app.oci.removal import plan_removal


class Catalog:
    """All images of one layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._images: dict[str, StoredImage] = {}

    def load(self) -> None:
        """Read the layout's index."""
        self._images = self._layout.load()

    def images(self) -> list[Image]:
        """All images, in no order."""
        return [stored.image for stored in self._images.values()]

    def stored(self, image_id: str) -> StoredImage | None:
        """An image by its full id."""
        return self._images.get(image_id)

    def find(self, name: str) -> tuple[StoredImage, Reference | None]:
        """See `find_image`."""
        images = self._images
        image, reference = find_image([stored.image for stored in images.values()], name)
        return images[image.id], reference

    def known_layers(self) -> dict[Digest, KnownLayer]:
        """Layers that need not be read again, by diff_id."""
        known: dict[Digest, KnownLayer] = {}
        for stored in self._images.values():
            triples = zip(
                stored.image.diff_ids, stored.layers, stored.layer_sizes_bytes, strict=False
            )
            for diff_id, descriptor, size_bytes in triples:
                known[Digest.parse(diff_id)] = KnownLayer(descriptor, size_bytes)
        return known

    def publish(self, prepared: list[PreparedImage], limits: ImportLimits) -> list[Image]:
        """Make prepared images visible: blobs first, then index.json, at once for all."""
        images = dict(self._images)
        ids = []
        for item in prepared:
            image_id = str(digest_of(item.config))
            ids.append(image_id)
            stored = images.get(image_id) or self._add_image(item, image_id, limits)
            for reference in item.references:
                _take(images, reference)
            stored = images.get(image_id, stored)
            images[image_id] = with_references(stored, {*stored.image.references, *item.references})
        self._save(images)
        return [images[image_id].image for image_id in dict.fromkeys(ids)]

    def _add_image(self, item: PreparedImage, image_id: str, limits: ImportLimits) -> StoredImage:
        for layer in item.layers:
            if layer.blob is not None:
                self._layout.add_blob(layer.descriptor.digest, layer.blob)
        parsed = parse_manifest(item.manifest, what="manifest", limits=limits)
        manifest = Descriptor(parsed.media_type, digest_of(item.manifest), len(item.manifest))
        self._layout.add_blob(parsed.config.digest, item.config)
        self._layout.add_blob(manifest.digest, item.manifest)
        sizes = tuple(layer.unpacked_bytes for layer in item.layers)
        document = item.document
        image = Image(
            id=image_id,
            references=(),
            config=document.config,
            created=document.created,
            architecture=document.architecture,
            os=document.os,
            diff_ids=tuple(str(diff_id) for diff_id in document.diff_ids),
            size_bytes=sum(sizes),
            manifest_digest=str(manifest.digest),
        )
        return StoredImage(image, manifest, parsed.config, parsed.layers, sizes)

    def tag(self, name: str, new: Reference) -> Image:
        """See ImageStore.tag."""
        image_id = self.find(name)[0].image.id
        images = dict(self._images)
        _take(images, new)
        stored = images[image_id]
        images[image_id] = with_references(stored, {*stored.image.references, new})
        self._save(images)
        return images[image_id].image

    def untag(self, name: str) -> Image:
        """See ImageStore.untag."""
        stored, reference = self.find(name)
        if reference is None:
            raise ImageNotFound(name)
        images = dict(self._images)
        _take(images, reference)
        self._save(images)
        return images[stored.image.id].image

    def remove(
        self,
        name: str,
        *,
        force: bool,
        users: Collection[ImageUser],
        leased: Collection[str],
        kept: Collection[str],
    ) -> ImageRemoval:
        """See ImageStore.remove; `kept` as for `sweep()`."""
        stored, reference = self.find(name)
        image = stored.image
        plan = plan_removal(
            image,
            reference,
            force=force,
            users=users,
            is_leased=image.id in leased,
            asked_as=name,
        )
        images = dict(self._images)
        for item in plan.untag:
            _take(images, item)
        untagged = tuple(item.familiar for item in plan.untag)
        if not plan.is_deleted:
            self._save(images)
            return ImageRemoval(untagged, (), 0)
        del images[image.id]
        self._save(images)
        remaining = {diff_id for item in images.values() for diff_id in item.image.diff_ids}
        gone = [diff_id for diff_id in image.diff_ids if diff_id not in remaining]
        return ImageRemoval(untagged, (image.id, *reversed(gone)), self.sweep(kept))

    def _save(self, images: dict[str, StoredImage]) -> None:
        self._layout.save(images.values())
        self._images = images

    def sweep(self, kept: Collection[str]) -> int:
        """Delete what no image reaches; see Layout.sweep."""
        return self._layout.sweep(self._images.values(), kept=kept)


def _take(images: dict[str, StoredImage], reference: Reference) -> None:
    """Remove a reference from whichever image has it."""
    for image_id, stored in images.items():
        if reference in stored.image.references:
            remaining = [item for item in stored.image.references if item != reference]
            images[image_id] = with_references(stored, remaining)
            return
