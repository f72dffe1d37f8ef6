"""Whom a pull shows which credentials: token servers, mirrors, redirects."""

import dataclasses

import pytest

from app.domain.reference import Reference
from app.domain.registry import Credentials, RegistryDenied
from app.oci.pulling import Puller
from app.oci.store import ImageStore
from tests.integration.faulty_registry import (
    FaultyRegistry,
    cut_after,
    faulty_registry,
    says,
    token_server,
)
from tests.integration.pull.lab import BIG, OPTIONS, blob, pull
from tests.integration.registry_lab import sample_image


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
