"""Other tools read our store, and we read what they write."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from app.domain.image import Image
from tests.integration.image_lab import import_bytes, open_store
from tests.integration.squashfs_tree import list_disk
from tests.unit.oci.archives import Item, docker_archive, image_config, make_tar, sha256

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

LAYERS = [make_tar(Item("a", b"1" * 5000)), make_tar(Item("b", b"2"), Item(".wh.a"))]


def skopeo_copy(source: str, target: str) -> None:
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", source, target],
        check=True,
        capture_output=True,
        timeout=60,
    )


async def fill(root: Path) -> None:
    async with open_store(root) as store:
        await import_bytes(store, docker_archive(LAYERS, ("team/app:1",)))


async def take_in(root: Path, archive: bytes) -> Image:
    async with open_store(root) as store:
        [image] = await import_bytes(store, archive)
        low, high = await store.layer_disks(image)
        assert "/a" in list_disk(low)
        assert list_disk(high)["/a"].startswith("c--------- 0/0 0,0")
        return image


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_peer_reads_our_store_and_we_read_its_archive(tmp_path: Path, kind: str) -> None:
    asyncio.run(fill(tmp_path / "one"))
    archive = tmp_path / "archive.tar"
    skopeo_copy(f"oci:{tmp_path / 'one'}:docker.io/team/app:1", f"{kind}:{archive}:peer/app:2")
    image = asyncio.run(take_in(tmp_path / "two", archive.read_bytes()))
    assert image.display_name == "peer/app:2"
    assert image.diff_ids == tuple(sha256(layer) for layer in LAYERS)
    assert image.id == sha256(image_config(LAYERS))
