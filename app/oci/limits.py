"""What an import may ask of this machine."""

from dataclasses import dataclass

from app.core.units import GIB, MIB
from app.domain.image import LAYERS_MAX


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """Bounds against archives that are meant to hurt.

    Attributes:
        layer_entries: Entries of one layer; each costs some 200 bytes of memory while it is read.
        layer_bytes: Content of one layer, expanded, holes included.
        layers: Layers of one image.
        archive_bytes: Content of a whole archive, expanded once (layers inside may be packed, too).
        archive_members: Files of an image archive (not of a root filesystem).
        metadata_bytes: One JSON document; registries allow 4 MiB.
        images: Images in one archive.
        reserve_bytes: An import stops when less than this would stay free on the disk.
    """

    layer_entries: int = 1_000_000
    layer_bytes: int = 64 * GIB
    layers: int = LAYERS_MAX
    archive_bytes: int = 256 * GIB
    archive_members: int = 20_000
    metadata_bytes: int = 4 * MIB
    images: int = 100
    reserve_bytes: int = 256 * MIB
