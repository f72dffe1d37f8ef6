"""Pulls from a faulty registry into a store, and what there is to see of them."""

from pathlib import Path

from app.domain.reference import Reference
from app.domain.registry import Credentials, Transfer
from app.oci.pulling import Pulled, Puller
from app.oci.registry.options import RegistryOptions
from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry
from tests.integration.image_lab import files_below
from tests.integration.registry_lab import sample_layer
from tests.unit.oci.archives import sha256

OPTIONS = RegistryOptions(pause_s=0.01, idle_s=5.0, connect_s=5.0)
BIG = sample_layer("big", bytes(range(256)) * 20_000)


async def pull(
    store: ImageStore,
    registry: FaultyRegistry,
    name: str = "app",
    *,
    credentials: Credentials | None = None,
    options: RegistryOptions = OPTIONS,
    platform: str = "",
    steps: list[Transfer] | None = None,
) -> Pulled:
    return await Puller(store, options).pull(
        Reference.parse(f"{registry.host}/{name}"),
        credentials=credentials or Credentials(),
        platform=platform,
        report=(steps if steps is not None else []).append,
    )


def blob(image_layer: bytes, name: str = "app") -> str:
    return f"{name}/blobs/{sha256(image_layer)}"


async def is_clean(store: ImageStore, root: Path) -> bool:
    """Whether nothing but the empty store is there."""
    left = files_below(root / "images") - {"oci-layout", "index.json"}
    return not store.list_images() and not left
