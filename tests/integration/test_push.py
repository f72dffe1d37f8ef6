"""Pushes to a registry that misbehaves, and trust in a registry's certificate."""

import asyncio
import dataclasses
import shutil
from asyncio import StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.reference import Digest, Reference
from app.domain.registry import (
    Credentials,
    LayerProgress,
    LayerStage,
    RegistryFailed,
    Transfer,
    TransferEnded,
)
from app.oci.config import Descriptor
from app.oci.pulling import Puller
from app.oci.pushing import Pusher
from app.oci.registry import upload
from app.oci.registry.client import Repository
from app.oci.registry.options import Endpoint, RegistryOptions
from app.oci.registry.transport import Ask, Transport
from app.oci.registry.upload import put_blob
from app.oci.store import ImageStore
from tests.integration.faulty_registry import FaultyRegistry, Request, answer, faulty_registry, says
from tests.integration.image_lab import open_store
from tests.integration.registry_lab import (
    RealRegistry,
    needs_registry,
    real_registry,
    sample_image,
    sample_layer,
)
from tests.unit.oci.archives import sha256

OPTIONS = RegistryOptions(pause_s=0.01, idle_s=5.0, connect_s=5.0)
DATA = bytes(range(256)) * 4096  # 1 MiB
MEDIA = "application/vnd.oci.image.layer.v1.tar"


class Uploads:
    """The writing half of a registry, one upload at a time.

    Attributes:
        cuts: Bytes after which the next requests with a body break.
        got: What has come of the upload.
        done: Blobs by digest.
        forgets: Whether an upload that broke is lost.
    """

    def __init__(self, registry: FaultyRegistry) -> None:
        self.registry = registry
        self.cuts: list[int] = []
        self.got = b""
        self.done: dict[str, bytes] = {}
        self.begun = 0
        self.forgets = False
        registry.faults = _Always(self.handle)

    async def handle(self, _: FaultyRegistry, request: Request, writer: StreamWriter) -> bool:
        match request.method, request.path:
            case "POST", "/v2/app/blobs/uploads/":
                self.begun += 1
                self.got = b""
                answer(writer, 202, b"", {"Location": f"/v2/app/blobs/uploads/{self.begun}?_s=0"})
            case "PATCH" | "PUT", _:
                return self._take(request, writer)
            case "GET", _ if self.forgets:
                answer(writer, 404)
            case "GET", _:
                reached = {"Range": f"0-{len(self.got) - 1}", "Location": request.path}
                answer(writer, 204, b"", reached)
            case _:
                return False
        return True

    def _take(self, request: Request, writer: StreamWriter) -> bool:
        if self.cuts:
            self.got += request.body[: self.cuts.pop(0)]
            writer.close()
            return True
        self.got += request.body
        location = {"Location": f"{request.path}?_s={len(self.got)}"}
        if request.method == "PUT":
            (digest,) = request.query["digest"]
            if sha256(self.got) != digest:
                said = b'{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}'
                answer(writer, 400, said)
                return True
            self.done[digest] = self.got
        answer(writer, 201 if request.method == "PUT" else 202, b"", location)
        return True


class _Always(dict):  # type: ignore[type-arg]
    """One fault for every request."""

    def __init__(self, fault: object) -> None:
        super().__init__()
        self._fault = fault

    def get(self, _key: object, _default: object = None) -> list[object]:
        return [self._fault]


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty_registry() as registry:
        yield registry


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


DESCRIPTOR = Descriptor(MEDIA, Digest.parse(sha256(DATA)), len(DATA))


async def put(registry: FaultyRegistry, path: Path) -> list[int]:
    counts: list[int] = []
    endpoint = Endpoint(f"http://{registry.host}")
    async with Transport.open(endpoint, Credentials(), OPTIONS) as transport:
        repository = Repository(transport, "app", is_push=True)
        await put_blob(repository, DESCRIPTOR, path, counts.append)
    return counts


async def test_small_blob_goes_in_one(registry: FaultyRegistry, blob: Path) -> None:
    uploads = Uploads(registry)
    counts = await put(registry, blob)
    assert uploads.done == {sha256(DATA): DATA}
    assert [each.method for each in registry.requests] == ["POST", "PUT"]
    assert counts[-1] == len(DATA)
    assert counts == sorted(counts)


async def test_large_blob_goes_in_pieces(
    registry: FaultyRegistry, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "WHOLE_MAX_BYTES", 1000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 400_000)
    uploads = Uploads(registry)
    await put(registry, blob)
    assert uploads.done == {sha256(DATA): DATA}
    ranges = [each.headers.get("content-range") for each in registry.requests]
    assert ranges == [None, "0-399999", "400000-799999", "800000-1048575", None]


async def test_broken_piece_is_taken_up_where_the_registry_is(
    registry: FaultyRegistry, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "WHOLE_MAX_BYTES", 1000)
    monkeypatch.setattr(upload, "PIECE_BYTES", 400_000)
    uploads = Uploads(registry)
    uploads.cuts = [100_000]
    await put(registry, blob)
    assert uploads.done == {sha256(DATA): DATA}
    assert uploads.begun == 1


async def test_broken_upload_that_is_lost_begins_anew(registry: FaultyRegistry, blob: Path) -> None:
    uploads = Uploads(registry)
    uploads.cuts = [5, 0]
    uploads.forgets = True
    await put(registry, blob)
    assert uploads.done == {sha256(DATA): DATA}
    assert uploads.begun == 3


async def test_upload_that_always_breaks(registry: FaultyRegistry, blob: Path) -> None:
    uploads = Uploads(registry)
    uploads.cuts = [0] * 50
    with pytest.raises(RegistryFailed):
        await put(registry, blob)
    assert len([each for each in registry.requests if each.method == "PUT"]) == OPTIONS.attempts


async def test_refused_digest_is_told_at_once(registry: FaultyRegistry, tmp_path: Path) -> None:
    uploads = Uploads(registry)
    (tmp_path / "blob").write_bytes(DATA[:-1] + b"x")
    with pytest.raises(RegistryFailed, match="digest invalid"):
        await put(registry, tmp_path / "blob")
    assert uploads.begun == 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    async with open_store(tmp_path / "images") as store:
        yield store


@needs_registry
async def test_pulled_image_is_pushed_byte_for_byte(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    image = sample_image(sample_layer("a", DATA), sample_layer("b"))
    registry.add("app", "1", image)
    source = Reference.parse(f"{registry.host}/app:1")
    await Puller(store, OPTIONS).pull(source, credentials=Credentials(), report=lambda _: None)
    async with real_registry() as target:
        name = Reference.parse(f"{target.host}/copy:2")
        await store.tag(str(source), str(name))
        steps: list[Transfer] = []
        ended = await Pusher(store, OPTIONS).push(
            name, credentials=Credentials(), report=steps.append
        )
        assert ended == TransferEnded(name, Digest.parse(image.digest), len(image.manifest), False)
        stages = {step.stage for step in steps if isinstance(step, LayerProgress)}
        assert stages == {LayerStage.PREPARING, LayerStage.PUSHING, LayerStage.PUSHED}
        for digest, data in image.blobs.items():
            assert target.blob(digest).read_bytes() == data
        assert store.get(f"{target.host}/copy@{image.digest}").id == image.id


async def test_push_is_refused_in_the_registrys_words(
    store: ImageStore, registry: FaultyRegistry
) -> None:
    registry.add("app", "1", sample_image())
    name = Reference.parse(f"{registry.host}/app:1")
    await Puller(store, OPTIONS).pull(name, credentials=Credentials(), report=lambda _: None)
    said = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    registry.fail("", says(403, said))
    with pytest.raises(Exception, match=r"^denied: requested access"):
        await Pusher(store, OPTIONS).push(name, credentials=Credentials(), report=lambda _: None)


async def greet(registry: RealRegistry, ca: Path | None) -> int:
    options = dataclasses.replace(OPTIONS, ca=ca)
    endpoint = Endpoint(f"https://{registry.host}")
    async with Transport.open(endpoint, Credentials(), options) as transport:
        response, _ = await transport.fetch(Ask("GET", "/v2/", ()), 1000)
        return response.status_code


@needs_registry
async def test_certificates_are_checked(tmp_path: Path) -> None:
    async with real_registry(tls=True) as registry, real_registry(tls=True) as other:
        assert registry.ca is not None
        assert other.ca is not None
        for distrusted in (None, other.ca, tmp_path):
            with pytest.raises(RegistryFailed, match="certificate verify failed"):
                await greet(registry, distrusted)
        assert await greet(registry, registry.ca) == 200
        directory = tmp_path / registry.host
        directory.mkdir()
        await asyncio.to_thread(shutil.copy, registry.ca, directory / "ca.crt")
        assert await greet(registry, tmp_path) == 200
        with pytest.raises(RegistryFailed):
            await greet(other, tmp_path)


async def test_authorities_that_are_none(tmp_path: Path, registry: FaultyRegistry) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for wrong in (tmp_path / "ca.pem", tmp_path / "missing"):
        options = dataclasses.replace(OPTIONS, ca=wrong)
        with pytest.raises(Exception, match="can't be read"):
            async with Transport.open(Endpoint("https://x"), Credentials(), options):
                pass
