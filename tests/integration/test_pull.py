"""Pulls into a real store from a registry that misbehaves."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import CorruptData, InvalidArgument
from app.domain.reference import Reference
from app.domain.registry import (
    Credentials,
    LayerProgress,
    LayerStage,
    RegistryDenied,
    RegistryFailed,
    RegistryLacks,
    Transfer,
)
from app.oci.pulling import Pulled, Puller
from app.oci.registry.options import RegistryOptions
from app.oci.store import ImageStore
from tests.integration.faulty_registry import (
    FaultyRegistry,
    cut_after,
    endless,
    faulty_registry,
    says,
    sends,
    stall_after,
    token_server,
)
from tests.integration.image_lab import files_below, open_store
from tests.integration.registry_lab import index_of, sample_image, sample_layer
from tests.unit.oci.archives import sha256

OPTIONS = RegistryOptions(pause_s=0.01, idle_s=5.0, connect_s=5.0)
BIG = sample_layer("big", bytes(range(256)) * 20_000)


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty_registry() as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    async with open_store(tmp_path / "images") as store:
        yield store


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


def stages(steps: list[Transfer]) -> list[LayerStage]:
    found = [step.stage for step in steps if isinstance(step, LayerProgress)]
    return list(dict.fromkeys(found))


def blob(image_layer: bytes, name: str = "app") -> str:
    return f"{name}/blobs/{sha256(image_layer)}"


async def is_clean(store: ImageStore, root: Path) -> bool:
    """Whether nothing but the empty store is there."""
    left = files_below(root / "images") - {"oci-layout", "index.json"}
    return not store.list_images() and not left


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


async def test_redirected_blob_goes_without_credentials(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image(BIG)
    registry.add("app", "latest", image)
    async with faulty_registry() as elsewhere, token_server({"token": "t"}) as tokens:
        registry.tokens, registry.realm = {"t"}, tokens.realm
        elsewhere.blobs["store/x"] = BIG
        elsewhere.fail("store/x", cut_after(1000))
        target = f"http://{elsewhere.host}/v2/store/x"
        registry.fail(blob(BIG), says(307, Location=target), says(307, Location=target))
        assert (await pull(store, registry)).image.id == image.id
        assert len(elsewhere.requests) == 2
        assert not any("authorization" in each.headers for each in elsewhere.requests)
    assert any("authorization" in each.headers for each in registry.requests)


async def test_redirects_without_end(store: ImageStore, registry: FaultyRegistry) -> None:
    path = "app/manifests/latest"
    registry.fail(path, *[says(307, Location=f"/v2/{path}")] * 30)
    with pytest.raises(RegistryFailed, match="too many redirects"):
        await pull(store, registry)


async def test_bearer_tokens(store: ImageStore, registry: FaultyRegistry) -> None:
    image = sample_image()
    registry.add("app", "latest", image)
    async with token_server({"token": "first", "expires_in": 300}) as tokens:
        registry.tokens, registry.realm = {"first"}, tokens.realm
        await pull(store, registry, credentials=Credentials("alice", "s3cret"))
        assert tokens.users == ["alice:s3cret"]  # one token for manifest, configuration, layers
        assert tokens.requests[0].query["scope"] == ["repository:app:pull"]
        assert tokens.requests[0].query["service"] == ["test"]


async def test_token_that_ends_is_renewed(store: ImageStore, registry: FaultyRegistry) -> None:
    registry.add("app", "latest", sample_image(BIG))

    async def expire(registry: FaultyRegistry, *_: object) -> bool:
        registry.tokens = {"second"}
        return False

    async with token_server({"access_token": "first"}, {"token": "second"}) as tokens:
        registry.tokens, registry.realm = {"first"}, tokens.realm
        registry.fail(blob(BIG), expire)
        await pull(store, registry)
        assert len(tokens.requests) == 2


async def test_identity_token(store: ImageStore, registry: FaultyRegistry) -> None:
    registry.add("app", "latest", sample_image())
    async with token_server({"access_token": "t"}) as tokens:
        registry.tokens, registry.realm = {"t"}, tokens.realm
        await pull(store, registry, credentials=Credentials(identity_token="refresh-me"))
        assert tokens.requests[0].method == "POST"
        assert b"refresh_token=refresh-me" in tokens.requests[0].body


async def test_token_server_that_refuses(store: ImageStore, registry: FaultyRegistry) -> None:
    async with token_server({"token": "t"}) as tokens:
        tokens.refuses = True
        registry.tokens, registry.realm = {"t"}, tokens.realm
        with pytest.raises(RegistryDenied, match="incorrect username or password"):
            await pull(store, registry, credentials=Credentials("alice", "wrong"))


async def test_mirror_is_asked_first_and_by_nobody(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image()
    registry.add("library/app", "latest", image)
    options = dataclasses.replace(OPTIONS, mirrors=(f"http://{registry.host}",))
    pulled = await Puller(store, options).pull(
        Reference.parse("app"), credentials=Credentials("me", "secret"), report=lambda _: None
    )
    assert [name.familiar for name in pulled.image.tags] == ["app:latest"]
    assert not any("authorization" in each.headers for each in registry.requests)


async def test_pulls_at_the_same_time_share_layers(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image(BIG)
    registry.add("app", "latest", image)
    go_on = asyncio.Event()
    registry.fail(blob(BIG), stall_after(1000, go_on))
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(pull(store, registry)) for _ in range(3)]
        await registry.until_asked("/v2/app/manifests/latest", 3)
        await registry.until_asked(f"/v2/{blob(BIG)}")
        go_on.set()
    assert {task.result().image.id for task in pulls} == {image.id}
    assert len(registry.asked(f"/v2/{blob(BIG)}")) == 1


async def test_a_pull_goes_on_when_the_one_that_began_leaves(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image(BIG)
    registry.add("app", "latest", image)
    go_on = asyncio.Event()
    registry.fail(blob(BIG), stall_after(300_000, go_on))
    first = asyncio.create_task(pull(store, registry))
    await registry.until_asked(f"/v2/{blob(BIG)}")
    has_joined = asyncio.Event()

    def watch(step: Transfer) -> None:
        if isinstance(step, LayerProgress):
            has_joined.set()

    reference = Reference.parse(f"{registry.host}/app")
    second = asyncio.create_task(
        Puller(store, OPTIONS).pull(reference, credentials=Credentials(), report=watch)
    )
    async with asyncio.timeout(10):
        await has_joined.wait()
    first.cancel()
    async with asyncio.timeout(10):
        assert (await second).image.id == image.id
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(registry.asked(f"/v2/{blob(BIG)}")) == 2
    go_on.set()


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


async def test_half_pulled_layers_survive_a_removal(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    small = sample_layer("small")
    registry.add("app", "latest", sample_image(small, BIG))
    registry.add("other", "latest", sample_image(sample_layer("other")))
    go_on, small_is_here = asyncio.Event(), asyncio.Event()
    registry.fail(blob(BIG), stall_after(300_000, go_on))

    def watch(step: Transfer) -> None:
        if isinstance(step, LayerProgress) and step.stage is LayerStage.PULLED:
            small_is_here.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        pulling = group.create_task(
            Puller(store, OPTIONS).pull(
                Reference.parse(f"{registry.host}/app"), credentials=Credentials(), report=watch
            )
        )
        await pull(store, registry, "other")
        await small_is_here.wait()
        await store.remove(f"{registry.host}/other")
        go_on.set()
    assert len(await store.layer_disks(pulling.result().image)) == 2


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
