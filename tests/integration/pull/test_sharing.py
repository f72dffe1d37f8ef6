"""Pulls at the same time, and with a removal beside them: layers that they share."""

import asyncio

import pytest

from app.domain.reference import Reference
from app.domain.registry import Credentials, LayerProgress, LayerStage, Transfer
from app.oci.pulling import Puller
from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry, stall_after
from tests.integration.pull.lab import BIG, OPTIONS, blob, pull
from tests.integration.registry_lab import sample_image, sample_layer


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
