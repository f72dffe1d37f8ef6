"""Pulls into a real store: what they bring, and what one that ends early leaves."""

import asyncio
from pathlib import Path

import pytest

from app.domain.registry import LayerProgress, LayerStage, RegistryLacks, Transfer
from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry, stall_after
from tests.integration.image_lab import open_store
from tests.integration.pull.lab import BIG, blob, is_clean, pull
from tests.integration.registry_lab import index_of, sample_image, sample_layer
from tests.unit.oci.archives import sha256


def stages(steps: list[Transfer]) -> list[LayerStage]:
    found = [step.stage for step in steps if isinstance(step, LayerProgress)]
    return list(dict.fromkeys(found))


async def test_image_and_its_digests_come(store: ImageStore, registry: FaultyRegistry) -> None:
    image = sample_image()
    registry.add("app", "latest", image)
    steps: list[Transfer] = []
    pulled = await pull(store, registry, steps=steps)
    assert pulled.image.id == image.id
    assert pulled.image.manifest_digest == str(pulled.ended.digest) == image.digest
    assert pulled.ended.is_news
    names = [name.familiar for name in pulled.image.references]
    assert names == [f"{registry.host}/app:latest", f"{registry.host}/app@{image.digest}"]
    assert len(await store.layer_disks(pulled.image)) == 2
    assert {LayerStage.PULLING, LayerStage.DOWNLOADING, LayerStage.PULLED} <= set(stages(steps))
    assert store.get(f"{registry.host}/app@{image.digest}").id == image.id


async def test_second_pull_brings_no_layer(store: ImageStore, registry: FaultyRegistry) -> None:
    image = sample_image()
    registry.add("app", "latest", image)
    await pull(store, registry)
    steps: list[Transfer] = []
    again = await pull(store, registry, steps=steps)
    assert not again.ended.is_news
    assert stages(steps) == [LayerStage.EXISTS]
    assert len(registry.asked(f"/v2/{blob(image.layers[0])}")) == 1


async def test_shared_layer_comes_once(store: ImageStore, registry: FaultyRegistry) -> None:
    base = sample_layer("base")
    registry.add("app", "1", sample_image(base, sample_layer("one")))
    registry.add("app", "2", sample_image(base, sample_layer("two")))
    await pull(store, registry, "app:1")
    steps: list[Transfer] = []
    await pull(store, registry, "app:2", steps=steps)
    assert LayerStage.EXISTS in stages(steps)
    assert len(registry.asked(f"/v2/{blob(base)}")) == 1


async def test_index_gives_the_wanted_platform(store: ImageStore, registry: FaultyRegistry) -> None:
    here, arm = sample_image(), sample_image(sample_layer("arm"), architecture="arm64")
    index = index_of(("linux/arm64/v8", arm), ("linux/amd64", here), ("unknown/unknown", arm))
    for image in (here, arm):
        registry.add("app", "x", image)
    registry.add_index("app", "latest", index)
    pulled = await pull(store, registry, platform="linux/amd64")
    assert pulled.image.id == here.id
    assert str(pulled.ended.digest) == sha256(index)
    assert store.get(f"{registry.host}/app@{sha256(index)}").id == here.id
    assert (await pull(store, registry, platform="linux/arm64")).image.id == arm.id
    with pytest.raises(RegistryLacks, match="no matching manifest for linux/s390x in the manif"):
        await pull(store, registry, platform="linux/s390x")


async def test_single_manifest_of_another_platform(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.add("app", "latest", sample_image())
    with pytest.raises(RegistryLacks, match="wanted linux/arm64, actual: linux/amd64"):
        await pull(store, registry, platform="linux/arm64")
    assert await is_clean(store, tmp_path)


async def test_cancelled_pull_leaves_nothing(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.add("app", "latest", sample_image(BIG, sample_layer("small")))
    go_on = asyncio.Event()
    registry.fail(blob(BIG), stall_after(300_000, go_on))
    task = asyncio.create_task(pull(store, registry))
    await registry.until_asked(f"/v2/{blob(BIG)}")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_clean(store, tmp_path)
    go_on.set()


async def test_crash_leaves_nothing(tmp_path: Path, registry: FaultyRegistry) -> None:
    """What a killed engine leaves of a pull: a staged blob, a finished layer that nobody has."""
    async with open_store(tmp_path / "images"):
        pass
    root = tmp_path / "images"
    (root / "ingest/abc").mkdir()
    (root / "ingest/abc/blob").write_bytes(b"half")
    (root / "blobs/sha256" / ("a" * 64)).write_bytes(b"whole")
    (root / "layers" / ("b" * 64 + ".sqfs")).write_bytes(b"disk")
    async with open_store(root) as store:
        assert await is_clean(store, tmp_path)
