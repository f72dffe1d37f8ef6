"""A real image store in a temporary directory."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from app.domain.image import Image
from app.oci.limits import ImportLimits
from app.oci.store import ImageStore
from tests.unit.oci.archives import stream


@contextlib.asynccontextmanager
async def open_store(root: Path, limits: ImportLimits | None = None) -> AsyncIterator[ImageStore]:
    """Open it, and close it afterwards."""
    store = ImageStore(root, limits=limits)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def import_bytes(store: ImageStore, data: bytes, reference: str | None = None) -> list[Image]:
    """Import an archive at hand."""
    return await store.import_stream(stream(data), reference=reference)


def files_below(root: Path) -> set[str]:
    """Every file, relative; directories are left out."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
