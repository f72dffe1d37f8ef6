"""Pull and push by the real docker CLI against real registries, over the fake machine."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.services.bundle import Services
from app.settings import Settings
from tests.integration.docker_lab import DockerClient, docker_served, needs_docker_cli
from tests.integration.engine_lab import DEADLINE_S, WHO, EngineLab
from tests.integration.faulty_registry import faulty_registry, stall_after, token_server
from tests.integration.registry_lab import (
    PASSWORD,
    SKOPEO,
    USER,
    RealRegistry,
    index_of,
    needs_registry,
    put_image,
    put_index,
    real_registry,
    run,
    sample_image,
    sample_layer,
)
from tests.unit.oci.archives import sha256

pytestmark = [needs_docker_cli, needs_registry]


@pytest.fixture
async def registry() -> AsyncIterator[RealRegistry]:
    async with real_registry() as registry:
        yield registry


async def test_pull_says_what_docker_says(docker: DockerClient, registry: RealRegistry) -> None:
    image = sample_image()
    await put_image(registry, "team/app", "1.0", image)
    name = f"{registry.host}/team/app:1.0"
    out = await docker.ok("pull", name)
    first, *layers, digest, status, last = out.splitlines()
    assert first == "1.0: Pulling from team/app"
    short = [sha256(layer)[7:19] for layer in image.layers]
    for layer in short:
        assert f"{layer}: Pulling fs layer" in layers
        assert f"{layer}: Download complete" in layers
        assert f"{layer}: Pull complete" in layers
    assert digest == f"Digest: {image.digest}"
    assert status == f"Status: Downloaded newer image for {name}"
    assert last == name
    again = (await docker.ok("pull", name)).splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}"
    shown = json.loads(await docker.ok("image", "inspect", name))[0]
    assert shown["Id"] == image.id
    assert shown["RepoTags"] == [name]
    assert shown["RepoDigests"] == [f"{registry.host}/team/app@{image.digest}"]


async def test_layer_that_is_there(docker: DockerClient, registry: RealRegistry) -> None:
    base = sample_layer("base")
    await put_image(registry, "app", "1", sample_image(base, sample_layer("one")))
    await put_image(registry, "app", "2", sample_image(base, sample_layer("two")))
    await docker.ok("pull", f"{registry.host}/app:1")
    out = await docker.ok("pull", f"{registry.host}/app:2")
    assert f"{sha256(base)[7:19]}: Already exists" in out


async def test_pull_by_digest_and_run(docker: DockerClient, registry: RealRegistry) -> None:
    image = sample_image()
    await put_image(registry, "app", "latest", image)
    name = f"{registry.host}/app@{image.digest}"
    out = await docker.ok("pull", name)
    assert f"{image.digest}: Pulling from app" in out.replace(f"{registry.host}/", "")
    container = (await docker.ok("create", name, "sh")).strip()
    shown = json.loads(await docker.ok("inspect", container))[0]
    assert shown["Image"] == image.id
    await docker.ok("rm", container)
    await docker.ok("rmi", name)
    assert image.id[7:19] not in await docker.ok("images", "-a")


async def test_run_pulls_what_is_missing(docker: DockerClient, registry: RealRegistry) -> None:
    await docker.ok("tag", "busybox", f"{registry.host}/box:1")
    await docker.ok("push", f"{registry.host}/box:1")
    await docker.ok("rmi", f"{registry.host}/box:1")
    ran = await docker.run("run", "--rm", f"{registry.host}/box:1", "echo", "hi")
    assert (ran.code, ran.out) == (0, "hi\n")
    assert f"Unable to find image '{registry.host}/box:1' locally" in ran.err
    assert "Status: Downloaded newer image" in ran.err


async def test_all_tags(docker: DockerClient, registry: RealRegistry) -> None:
    await put_image(registry, "app", "1", sample_image(sample_layer("one")))
    await put_image(registry, "app", "2", sample_image(sample_layer("two")))
    await docker.ok("pull", "-a", f"{registry.host}/app")
    out = await docker.ok("images", "--format", "{{.Tag}}", f"{registry.host}/app")
    assert sorted(out.split()) == ["1", "2"]


async def test_images_for_several_platforms(docker: DockerClient, registry: RealRegistry) -> None:
    here, arm = sample_image(), sample_image(sample_layer("arm"), architecture="arm64")
    await put_image(registry, "multi", "amd64", here)
    await put_image(registry, "multi", "arm64", arm)
    index = index_of(("linux/arm64/v8", arm), ("linux/amd64", here))
    await put_index(registry, "multi", "latest", index)
    name = f"{registry.host}/multi"
    out = await docker.ok("pull", "--platform", "linux/amd64", name)
    assert f"Digest: {sha256(index)}" in out
    assert json.loads(await docker.ok("image", "inspect", name))[0]["Id"] == here.id
    await docker.ok("pull", "--platform", "linux/arm64", name)
    assert json.loads(await docker.ok("image", "inspect", name))[0]["Id"] == arm.id
    ran = await docker.run("pull", "--platform", "linux/riscv64", name)
    assert ran.code == 1
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in ran.err


async def test_refusals_in_dockers_words(docker: DockerClient, registry: RealRegistry) -> None:
    await put_image(registry, "app", "1", sample_image())
    name = f"{registry.host}/app:nope"
    ran = await docker.run("pull", name)
    assert ran.code == 1
    said = f"manifest for {name} not found: manifest unknown: manifest unknown"
    assert ran.err == f"Error response from daemon: {said}\n"
    ran = await docker.run("push", f"{registry.host}/none:1")
    assert ran.code == 1
    assert "The push refers to repository" in ran.out
    assert f"An image does not exist locally with the tag: {registry.host}/none" in ran.err
    ran = await docker.run("pull", "127.0.0.1:1/app")
    assert ran.code == 1
    assert "127.0.0.1:1" in ran.err


async def test_push_and_pull_again_gives_the_same_digests(
    docker: DockerClient, registry: RealRegistry
) -> None:
    image = sample_image(sample_layer("big", bytes(range(256)) * 100_000), sample_layer("small"))
    await put_image(registry, "app", "1", image)
    await docker.ok("pull", f"{registry.host}/app:1")
    await docker.ok("tag", f"{registry.host}/app:1", f"{registry.host}/app:2")
    out = await docker.ok("push", f"{registry.host}/app:2")
    assert f"The push refers to repository [{registry.host}/app]" in out
    assert out.count(": Layer already exists") == 2
    assert f"2: digest: {image.digest} size: {len(image.manifest)}" in out
    async with real_registry() as other:
        name = f"{other.host}/team/app:3"
        await docker.ok("tag", f"{registry.host}/app:1", name)
        out = await docker.ok("push", name)
        assert out.count(": Pushed") == 2
        assert f"3: digest: {image.digest} size: {len(image.manifest)}" in out
        for digest, data in image.blobs.items():
            assert other.blob(digest).read_bytes() == data
        shown = json.loads(await docker.ok("image", "inspect", name))[0]
        assert f"{other.host}/team/app@{image.digest}" in shown["RepoDigests"]


async def test_layers_are_mounted_from_another_repository(
    docker: DockerClient, registry: RealRegistry
) -> None:
    await put_image(registry, "app", "1", sample_image())
    await docker.ok("pull", f"{registry.host}/app:1")
    await docker.ok("tag", f"{registry.host}/app:1", f"{registry.host}/copy:1")
    out = await docker.ok("push", f"{registry.host}/copy:1")
    assert out.count(": Mounted from app") == 2


async def test_push_all_tags(docker: DockerClient, registry: RealRegistry) -> None:
    for tag in ("1", "2"):
        await docker.ok("tag", "busybox", f"{registry.host}/box:{tag}")
    await docker.ok("push", "-a", f"{registry.host}/box")
    async with httpx2.AsyncClient(trust_env=False) as client:
        tags = (await client.get(f"{registry.url}/v2/box/tags/list")).json()["tags"]
    assert sorted(tags) == ["1", "2"]


async def test_events_of_pull_and_push(
    docker: DockerClient, registry: RealRegistry, services: Services
) -> None:
    await put_image(registry, "app", "1", sample_image())
    await docker.ok("pull", f"{registry.host}/app:1")
    await docker.ok("push", f"{registry.host}/app:1")
    events = await services.events.list(limit=2)
    assert [event.action for event in events] == ["push", "pull"]
    assert {event.actor_name for event in events} == {f"{registry.host}/app:1"}


async def test_basic_auth_over_tls(lab: EngineLab) -> None:
    async with real_registry(tls=True, basic=True) as registry:
        lab.settings = lab.settings.model_copy(update={"registry_ca": str(registry.ca)})
        async with lab.engine() as services, docker_served(services) as docker:
            await docker.ok("tag", "busybox", f"{registry.host}/priv/box:1")
            ran = await docker.run("push", f"{registry.host}/priv/box:1")
            assert ran.code == 1
            assert "no basic auth credentials" in ran.err
            ran = await docker.run("login", "-u", USER, "-p", "wrong", registry.host)
            assert ran.code == 1
            url = f"https://{registry.host}/v2/"
            said = f"login attempt to {url} failed with status: 401 Unauthorized"
            assert said in ran.err
            out = await docker.ok("login", "-u", USER, "-p", PASSWORD, registry.host)
            assert "Login Succeeded" in out
            await docker.ok("push", f"{registry.host}/priv/box:1")
            await docker.ok("rmi", f"{registry.host}/priv/box:1")
            await docker.ok("pull", f"{registry.host}/priv/box:1")
            await docker.ok("logout", registry.host)
            ran = await docker.run("pull", f"{registry.host}/priv/box:1")
            assert ran.code == 1
            assert "no basic auth credentials" in ran.err


async def test_authorities_by_registry(lab: EngineLab, tmp_path: Path) -> None:
    """A directory in the form of Docker's certs.d; without it nothing is trusted but loopback."""
    async with real_registry(tls=True) as registry:
        assert registry.ca is not None
        await put_with_skopeo(registry)
        port = registry.host.rpartition(":")[2]
        trusted = tmp_path / "certs.d" / registry.host
        trusted.mkdir(parents=True)
        shutil.copy(registry.ca, trusted / "ca.crt")
        settings: Settings = lab.settings
        lab.settings = settings.model_copy(update={"registry_ca": str(tmp_path / "certs.d")})
        async with lab.engine() as services, docker_served(services) as docker:
            await docker.ok("pull", f"{registry.host}/box:1")
            assert port in await docker.ok("images")


async def put_with_skopeo(registry: RealRegistry) -> None:
    if SKOPEO is None:
        pytest.skip("skopeo is not installed")
    archive = registry.root / "box.tar"
    await asyncio.to_thread(archive.write_bytes, _archive())
    await run(
        SKOPEO, "copy", "--dest-tls-verify=false", f"docker-archive:{archive}",
        f"docker://{registry.host}/box:1",
    )  # fmt: skip


def _archive() -> bytes:
    from tests.unit.oci.archives import docker_archive

    return docker_archive([sample_layer("one"), sample_layer("two")], is_old_form=True)


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_images_that_skopeo_made(
    docker: DockerClient, registry: RealRegistry, form: str
) -> None:
    """Layers compressed by it, with either kind of media types; and it can read what we push."""
    assert SKOPEO is not None
    archive = registry.root / "box.tar"
    await asyncio.to_thread(archive.write_bytes, _archive())
    name = f"{registry.host}/{form}:1"
    await run(
        SKOPEO, "copy", "--format", form, "--dest-tls-verify=false",
        f"docker-archive:{archive}", f"docker://{name}",
    )  # fmt: skip
    raw = await run(SKOPEO, "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    await docker.ok("pull", name)
    shown = json.loads(await docker.ok("image", "inspect", name))[0]
    assert shown["RepoDigests"] == [f"{registry.host}/{form}@{sha256(raw.encode())}"]
    copy = f"{registry.host}/copy-{form}:1"
    await docker.ok("tag", name, copy)
    await docker.ok("push", copy)
    assert raw == await run(SKOPEO, "inspect", "--raw", "--tls-verify=false", f"docker://{copy}")
    await docker.ok("tag", "busybox", f"{registry.host}/ours:1")
    await docker.ok("push", f"{registry.host}/ours:1")
    target = f"oci:{registry.root}/out:1"
    await run(SKOPEO, "copy", "--src-tls-verify=false", f"docker://{registry.host}/ours:1", target)


async def test_bearer_tokens_through_the_cli(docker: DockerClient) -> None:
    image = sample_image()
    async with faulty_registry() as registry, token_server({"token": "t"}) as tokens:
        registry.add("app", "latest", image)
        registry.tokens, registry.realm = {"t"}, tokens.realm
        await docker.ok("login", "-u", USER, "-p", PASSWORD, registry.host)
        await docker.ok("pull", f"{registry.host}/app")
        assert set(tokens.users) == {f"{USER}:{PASSWORD}"}
        tokens.refuses = True
        ran = await docker.run("login", "-u", USER, "-p", "wrong", registry.host)
        assert ran.code == 1
        assert "401 Unauthorized" in ran.err


async def test_mirror_of_docker_io(lab: EngineLab) -> None:
    async with real_registry() as mirror:
        image = sample_image()
        await put_image(mirror, "library/thing", "latest", image)
        lab.settings = lab.settings.model_copy(update={"registry_mirrors": mirror.url})
        async with lab.engine() as services, docker_served(services) as docker:
            out = await docker.ok("pull", "thing")
            assert out.splitlines()[-1] == "docker.io/library/thing:latest"
            assert "latest: Pulling from library/thing" in out
            assert "Status: Downloaded newer image for thing:latest" in out


async def test_interrupted_client_ends_its_pull(
    docker: DockerClient, services: Services, lab: EngineLab
) -> None:
    big = sample_layer("big", bytes(3_000_000))
    go_on = asyncio.Event()
    async with faulty_registry() as registry:
        registry.add("app", "latest", sample_image(big))
        registry.fail(f"app/blobs/{sha256(big)}", stall_after(100_000, go_on))
        process = await docker.start("pull", f"{registry.host}/app")
        await registry.until_asked(f"/v2/app/blobs/{sha256(big)}")
        process.terminate()
        await process.communicate()
        staged = lab.settings.data_dir / "images/ingest"
        async with asyncio.timeout(DEADLINE_S):
            while any(await asyncio.to_thread(lambda: list(staged.iterdir()))):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        go_on.set()
    assert [image.display_name for image in await services.images.list()] == ["busybox:latest"]


async def test_distribution_inspect(docker: DockerClient, registry: RealRegistry) -> None:
    here, arm = sample_image(), sample_image(sample_layer("arm"), architecture="arm64")
    await put_image(registry, "multi", "a", here)
    await put_image(registry, "multi", "b", arm)
    index = index_of(("linux/arm64/v8", arm), ("linux/amd64", here))
    await put_index(registry, "multi", "latest", index)
    found = await ask(docker, f"/distribution/{registry.host}/multi:latest/json")
    assert found["Descriptor"]["digest"] == sha256(index)
    assert found["Descriptor"]["size"] == len(index)
    assert [each["architecture"] for each in found["Platforms"]] == ["arm64", "amd64"]
    found = await ask(docker, f"/distribution/{registry.host}/multi:a/json")
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]


async def ask(docker: DockerClient, path: str) -> dict[str, Any]:
    transport = httpx2.AsyncHTTPTransport(uds=docker.host.removeprefix("unix://"))
    nobody = base64.urlsafe_b64encode(b"{}").decode()
    async with httpx2.AsyncClient(transport=transport, base_url="http://docker") as client:
        answer = await client.get(path, headers={"X-Registry-Auth": nobody})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def test_service_pull_is_followed_by_steps(
    services: Services, registry: RealRegistry
) -> None:
    """A transfer that nobody reads goes on; whoever reads late misses no stage."""
    from app.domain.registry import Credentials, TransferEnded, TransferStarted

    image = sample_image()
    await put_image(registry, "app", "1", image)
    transfer = await services.registries.pull(
        f"{registry.host}/app:1", credentials=Credentials(), initiator=WHO
    )
    try:
        steps = [step async for step in transfer.steps()]
    finally:
        await transfer.close()
    assert isinstance(steps[0], TransferStarted)
    assert isinstance(steps[-1], TransferEnded)
