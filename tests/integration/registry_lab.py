"""Real registries of Debian's docker-registry on loopback, and images for them."""

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.unit.oci.archives import Item, directory, image_config, make_tar, sha256

REGISTRY = shutil.which("docker-registry")
SKOPEO = shutil.which("skopeo")
needs_registry = pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed")

DEADLINE_S = 15.0
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
USER, PASSWORD = "alice", "s3cret"
# bcrypt of PASSWORD, the only form that docker-registry reads
HTPASSWD = "alice:$2y$05$8EvMV/gbm6klpgLxFb6FEOKhyzlltt0MN8aDpbL2eyvPboNQb9Q9G\n"


@dataclass(frozen=True)
class RealRegistry:
    """A registry that runs.

    Attributes:
        host: Address and port, as in an image's name.
        ca: The authority of its certificate, with TLS.
    """

    host: str
    root: Path
    ca: Path | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob."""
        digits = digest.removeprefix("sha256:")
        base = self.root / "docker/registry/v2/blobs/sha256"
        return base / digits[:2] / digits / "data"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def real_registry(
    *, tls: bool = False, basic: bool = False, token_realm: str = "", token_cert: Path | None = None
) -> AsyncIterator[RealRegistry]:
    """Run one.

    Args:
        tls: With a certificate of an authority of its own.
        basic: For USER with PASSWORD only.
        token_realm: URL of a token server, in place of `basic`.
        token_cert: Certificate of the token server's signatures.
    """
    assert REGISTRY is not None
    with tempfile.TemporaryDirectory(prefix="sw-registry-") as name:
        root = Path(name)
        port = free_port()
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": name}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "x"},
        }
        ca = None
        if tls:
            ca = await make_certificate(root)
            config["http"]["tls"] = {"certificate": f"{name}/cert.pem", "key": f"{name}/key.pem"}
        if basic:
            (root / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": f"{name}/htpasswd"}}
        if token_realm:
            config["auth"] = {
                "token": {
                    "realm": token_realm,
                    "service": "test-registry",
                    "issuer": "test-issuer",
                    "rootcertbundle": str(token_cert),
                }
            }
        (root / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        process = await asyncio.create_subprocess_exec(
            REGISTRY,
            "serve",
            f"{name}/config.yml",
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": name},
        )
        try:
            registry = RealRegistry(f"127.0.0.1:{port}", root, ca)
            await _until_listening(port, process)
            yield registry
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def _until_listening(port: int, process: Process) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                assert process.returncode is None, "docker-registry did not start"
                await asyncio.sleep(0.01)
                continue
            writer.close()
            await writer.wait_closed()
            return


async def make_certificate(root: Path) -> Path:
    """An authority, and a certificate for 127.0.0.1 that it has signed; gives the authority's."""
    extensions = root / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca = root / "ca.crt"
    await run(
        "openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=test authority",
        "-keyout", root / "ca.key", "-out", ca,
    )  # fmt: skip
    await run(
        "openssl", "req", *key, "-subj", "/CN=registry",
        "-keyout", root / "key.pem", "-out", root / "csr.pem",
    )  # fmt: skip
    await run(
        "openssl", "x509", "-req", "-in", root / "csr.pem", "-CA", ca, "-CAkey", root / "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", root / "cert.pem",
    )  # fmt: skip
    return ca


async def run(*argv: str | Path) -> str:
    """Run a program that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{argv}: {out.decode()}"
    return out.decode()


@dataclass(frozen=True)
class SampleImage:
    """An image at hand: documents and blobs by digest."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return sha256(self.manifest)

    @property
    def id(self) -> str:
        """As Docker names it."""
        return sha256(self.config)

    @property
    def blobs(self) -> dict[str, bytes]:
        """All but the manifest."""
        return {sha256(data): data for data in (*self.layers, self.config)}


def sample_layer(marker: str, content: bytes = b"") -> bytes:
    """A tar with a directory and a file."""
    return make_tar(directory("etc"), Item(f"etc/{marker}", content or marker.encode()))


def sample_image(
    *layers: bytes, architecture: str = "amd64", is_docker: bool = False, **stated: Any
) -> SampleImage:
    """An image of uncompressed layers.

    Args:
        layers: Tars.
        architecture: In its configuration.
        is_docker: With Docker's media types, not OCI's.
        stated: `sizes`, `diff_ids`: lies.
    """
    layers = layers or (sample_layer("one"), sample_layer("two"))
    config = image_config(stated.get("diff_ids", layers), architecture=architecture)
    kinds = (
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"),
        (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar",
        ),
    )[is_docker]
    sizes: Sequence[int] = stated.get("sizes", [len(layer) for layer in layers])
    media_type = DOCKER_MANIFEST if is_docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": kinds[0], "digest": sha256(config), "size": len(config)},
        "layers": [
            {"mediaType": kinds[1], "digest": sha256(layer), "size": size}
            for layer, size in zip(layers, sizes, strict=True)
        ],
    }
    return SampleImage(json.dumps(manifest).encode(), config, tuple(layers), media_type)


def index_of(*images: tuple[str, SampleImage]) -> bytes:
    """An index of images by platform."""
    entries = []
    for platform, image in images:
        system, architecture, *variant = platform.split("/")
        named = {"os": system, "architecture": architecture}
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": named | ({"variant": variant[0]} if variant else {}),
            }
        )
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


async def put_image(
    registry: RealRegistry, name: str, tag: str, image: SampleImage, *, blobs: bool = True
) -> None:
    """Bring an image into a registry, without the code under test."""
    async with _client(registry) as client:
        for digest, data in image.blobs.items() if blobs else ():
            begun = await client.post(f"/v2/{name}/blobs/uploads/")
            assert begun.status_code == 202, begun.text
            url = httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
            done = await client.put(url, content=data)
            assert done.status_code == 201, done.text
        await _put(client, name, tag, image.manifest, image.media_type)


async def put_index(registry: RealRegistry, name: str, tag: str, index: bytes) -> None:
    """Name an index, whose images are there."""
    async with _client(registry) as client:
        await _put(client, name, tag, index, OCI_INDEX)


def _client(registry: RealRegistry) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=registry.url, trust_env=False)


async def _put(
    client: httpx2.AsyncClient, name: str, tag: str, data: bytes, media_type: str
) -> None:
    answer = await client.put(
        f"/v2/{name}/manifests/{tag}", content=data, headers={"Content-Type": media_type}
    )
    assert answer.status_code == 201, answer.text
