"""Pulls from a registry that breaks off, lies, refuses or never ends."""

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from app.core.errors import CorruptData, InvalidArgument
from app.domain.registry import RegistryFailed, RegistryLacks
from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry, cut_after, endless, says, sends
from tests.integration.pull.lab import BIG, OPTIONS, blob, is_clean, pull
from tests.integration.registry_lab import sample_image, sample_layer


async def test_cut_connection_is_taken_up(store: ImageStore, registry: FaultyRegistry) -> None:
    image = sample_image(BIG, is_docker=True)
    registry.add("app", "latest", image)
    registry.fail(blob(BIG), *[cut_after(700_000)] * 3)
    assert (await pull(store, registry)).image.id == image.id
    ranges = [each.headers.get("range", "") for each in registry.asked(f"/v2/{blob(BIG)}")]
    assert ranges == ["", "bytes=700000-", "bytes=1400000-", "bytes=2100000-"]


async def test_registry_that_ignores_ranges(store: ImageStore, registry: FaultyRegistry) -> None:
    image = sample_image(BIG)
    registry.add("app", "latest", image)
    registry.fail(blob(BIG), cut_after(700_000), sends(BIG))
    assert (await pull(store, registry)).image.id == image.id


async def test_connection_that_always_breaks(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.add("app", "latest", sample_image(BIG))
    registry.fail(blob(BIG), cut_after(700_000), *[cut_after(0)] * 20)
    with pytest.raises(RegistryFailed):
        await pull(store, registry)
    assert len(registry.asked(f"/v2/{blob(BIG)}")) == 1 + OPTIONS.attempts
    assert await is_clean(store, tmp_path)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(bytes(len(BIG)), id="other bytes"),
        pytest.param(BIG[:-1] + b"x", id="one byte"),
    ],
)
async def test_digest_mismatch(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path, lie: bytes
) -> None:
    registry.add("app", "latest", sample_image(BIG, sample_layer("fine")))
    registry.blobs[blob(BIG)] = lie
    with pytest.raises(CorruptData):
        await pull(store, registry)
    assert await is_clean(store, tmp_path)


async def test_truncated_blob(store: ImageStore, registry: FaultyRegistry, tmp_path: Path) -> None:
    registry.add("app", "latest", sample_image(BIG))
    registry.blobs[blob(BIG)] = BIG[:-100]
    with pytest.raises(CorruptData, match="not the"):
        await pull(store, registry)
    assert await is_clean(store, tmp_path)


async def test_size_that_lies(store: ImageStore, registry: FaultyRegistry, tmp_path: Path) -> None:
    registry.add("app", "latest", sample_image(BIG, sizes=[len(BIG) // 2]))
    with pytest.raises(CorruptData):
        await pull(store, registry)
    assert await is_clean(store, tmp_path)


async def test_endless_body_is_bounded(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.add("app", "latest", sample_image(BIG))
    registry.fail(blob(BIG), endless)
    with pytest.raises((CorruptData, InvalidArgument)):
        await pull(store, registry)
    assert await is_clean(store, tmp_path)


async def test_endless_manifest_is_bounded(store: ImageStore, registry: FaultyRegistry) -> None:
    registry.fail("app/manifests/latest", endless)
    with pytest.raises(RegistryFailed, match="larger than"):
        await pull(store, registry)


async def test_diff_id_that_lies(
    store: ImageStore, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.add("app", "latest", sample_image(BIG, diff_ids=[b"something else"]))
    with pytest.raises(CorruptData, match="expands to"):
        await pull(store, registry)
    assert await is_clean(store, tmp_path)


async def test_refusals_that_pass_are_asked_again(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image(BIG)
    registry.add("app", "latest", image)
    registry.fail("app/manifests/latest", says(503), says(500))
    registry.fail(blob(BIG), says(502), says(429, Retry_After="1"))
    begun = time.monotonic()
    assert (await pull(store, registry)).image.id == image.id
    assert time.monotonic() - begun >= 1.0


async def test_a_registry_cannot_hold_a_pull_up(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    registry.add("app", "latest", sample_image())
    registry.fail("app/manifests/latest", says(429, Retry_After="86400"))
    options = dataclasses.replace(OPTIONS, pause_max_s=0.1)
    async with asyncio.timeout(5):
        await pull(store, registry, options=options)


async def test_refusals_that_stay(store: ImageStore, registry: FaultyRegistry) -> None:
    registry.fail("app/manifests/latest", *[says(503)] * 10)
    with pytest.raises(RegistryFailed, match="received unexpected HTTP status: 503"):
        await pull(store, registry)
    assert len(registry.asked("/v2/app/manifests/latest")) == OPTIONS.attempts


async def test_missing_tag_in_dockers_words(store: ImageStore, registry: FaultyRegistry) -> None:
    with pytest.raises(RegistryLacks) as caught:
        await pull(store, registry, "app:nope")
    name = f"{registry.host}/app:nope"
    assert (
        caught.value.message == f"manifest for {name} not found: manifest unknown: manifest unknown"
    )


async def test_denied_in_dockers_words(store: ImageStore, registry: FaultyRegistry) -> None:
    said = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    registry.fail("app/manifests/latest", says(401, said))
    with pytest.raises(RegistryLacks) as caught:
        await pull(store, registry)
    assert caught.value.message == (
        f"pull access denied for {registry.host}/app, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )


async def test_schema_1_is_refused(store: ImageStore, registry: FaultyRegistry) -> None:
    old = b'{"schemaVersion":1,"name":"app","fsLayers":[]}'
    registry.manifests["app/manifests/latest"] = (
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        old,
    )
    with pytest.raises(InvalidArgument, match="schema 1 support is disabled"):
        await pull(store, registry)


async def test_manifest_by_digest_is_verified(store: ImageStore, registry: FaultyRegistry) -> None:
    image, other = sample_image(), sample_image(sample_layer("other"))
    registry.add("app", "latest", image)
    registry.manifests[f"app/manifests/{image.digest}"] = (other.media_type, other.manifest)
    with pytest.raises(CorruptData, match="manifest verification failed"):
        await pull(store, registry, f"app@{image.digest}")


async def test_redirects_without_end(store: ImageStore, registry: FaultyRegistry) -> None:
    path = "app/manifests/latest"
    registry.fail(path, *[says(307, Location=f"/v2/{path}")] * 30)
    with pytest.raises(RegistryFailed, match="too many redirects"):
        await pull(store, registry)
