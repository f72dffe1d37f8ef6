"""What brings an image into the store is given: a place to work, what is there, and publishing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.core.errors import InvalidArgument
from app.domain.image import Image
from app.domain.reference import Digest, Reference
from app.oci.importer import KnownLayer, PreparedImage, PreparedLayer
from app.oci.layout import Layout


@dataclass(frozen=True)
class Intake:
    """One import or pull; nothing of it outlives the block that gave it unless published.

    Attributes:
        staging: An own directory.
        known: Layers of the store by diff_id.
        pin: Keeps a disk (by diff_id) or blob (by digest) from sweeping until the block ends.
        publish: Makes images visible, all at once.
    """

    layout: Layout
    staging: Path
    known: Mapping[Digest, KnownLayer]
    pin: Callable[[Digest], None]
    publish: Callable[[list[PreparedImage]], Awaitable[list[Image]]]

    async def reuse(self, diff_id: Digest, blob_digest: Digest | None) -> PreparedLayer | None:
        """The layer from the store, if it is there whole (and of that blob); pinned."""
        known = self.known.get(diff_id)
        if known is None or blob_digest not in (None, known.descriptor.digest):
            return None
        self.pin(diff_id)
        self.pin(known.descriptor.digest)
        paths = (
            self.layout.disk_path(diff_id),
            self.layout.blob_path(known.descriptor.digest),
        )
        if not all([await asyncio.to_thread(path.exists) for path in paths]):
            return None
        return PreparedLayer(diff_id, known.descriptor, known.unpacked_bytes, None)


def renamed(prepared: list[PreparedImage], name: Reference | None) -> list[PreparedImage]:
    """Apply the caller's name, or clean the archive's own: tags only."""
    if name is None:
        return [
            replace(
                item,
                references=tuple(
                    replace(reference, digest=None)
                    for reference in item.references
                    if reference.tag is not None
                ),
            )
            for item in prepared
        ]
    if len(prepared) != 1:
        raise InvalidArgument(
            f"the archive holds {len(prepared)} images, so one name can't be given to it",
            field="reference",
            advice="Leave the name empty to keep the archive's own.",
        )
    return [replace(prepared[0], references=(name,))]
