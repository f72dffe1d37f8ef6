"""Pull of an image of 400 MB by the docker CLI: from Slipway and a Docker Engine, alternating.

Both pull from one docker-registry on loopback; layers are gzip, of real files of this machine. A
pull by Slipway includes making the disks that VMs mount, one by Docker unpacking. Prints one JSON
line per result. Usage: python -m bench.pull [pulls of each, by default 5] [MB, by default 400]
"""

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from bench.engines import docker, run_command, slipway
from bench.figures import emit_machine, ratio, say, spread

DEFAULT_PULLS = 5
DEFAULT_MB = 400
LAYERS = 4
FILE_MAX_BYTES = 8_000_000
SOURCE = Path("/usr")
WAIT_S = 0.05
START_S = 20.0


def files() -> Iterator[Path]:
    """Real files in a fixed order."""
    for root, directories, names in os.walk(SOURCE):
        directories.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path


def make_layer(source: Iterator[Path], size_bytes: int) -> bytes:
    """A tar of the next files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in source:
            if path.stat().st_size <= FILE_MAX_BYTES:
                tar.add(path, recursive=False)
            if buffer.tell() >= size_bytes:
                break
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """As registries name blobs."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@asynccontextmanager
async def registry(root: Path) -> AsyncIterator[str]:
    """A docker-registry on a free port; gives its host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(root / "registry")}},
        "http": {"addr": host},
    }
    (root / "config.yml").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        "docker-registry", "serve", root / "config.yml", stdin=DEVNULL, stdout=DEVNULL,
        stderr=DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_S), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(f"http://{host}/v2/")
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(WAIT_S)
        yield host
    finally:
        process.terminate()
        await process.wait()


async def publish(host: str, size_mb: int) -> int:
    """Put the image into the registry; gives its compressed size."""
    source, layers, diff_ids = files(), list[bytes](), list[str]()
    for _ in range(LAYERS):
        tar = await asyncio.to_thread(make_layer, source, size_mb * 1_000_000 // LAYERS)
        diff_ids.append(digest(tar))
        layers.append(await asyncio.to_thread(gzip.compress, tar, 6, mtime=0))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    kind = "application/vnd.docker"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.distribution.manifest.v2+json",
        "config": _descriptor(f"{kind}.container.image.v1+json", config),
        "layers": [_descriptor(f"{kind}.image.rootfs.diff.tar.gzip", each) for each in layers],
    }
    async with httpx2.AsyncClient(
        base_url=f"http://{host}", trust_env=False, timeout=120
    ) as client:
        for blob in (*layers, config):
            begun = await client.post("/v2/bench/blobs/uploads/")
            url = httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": digest(blob)})
            (await client.put(url, content=blob)).raise_for_status()
        named = {"Content-Type": str(manifest["mediaType"])}
        body = json.dumps(manifest).encode()
        answer = await client.put("/v2/bench/manifests/latest", content=body, headers=named)
        answer.raise_for_status()
    return sum(map(len, layers))


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


async def pull_s(host: str, env: dict[str, str]) -> float:
    """One pull into an engine that has nothing of the image, and its removal."""
    began_s = time.perf_counter()
    await run_command("docker", "pull", "--quiet", f"{host}/bench", env=env)
    elapsed_s = time.perf_counter() - began_s
    await run_command("docker", "rmi", f"{host}/bench", env=env)
    return elapsed_s


async def main(pulls: int, size_mb: int) -> None:
    """Measure both by turns."""
    emit_machine("pull")
    if shutil.which("docker-registry") is None:
        print(json.dumps({"bench": "pull", "note": "docker-registry is not installed"}))
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = f"127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="slipway-bench-pull-") as name:
        async with (
            registry(Path(name)) as host,
            slipway({"SLIPWAY_DOCKER_TCP": tcp}),
            docker() as docker_env,
        ):
            sent_bytes = await publish(host, size_mb)
            say(f"{size_mb} MB in {LAYERS} layers, {sent_bytes / 1e6:.0f} MB compressed")
            subjects = {"slipway": os.environ | {"DOCKER_HOST": f"tcp://{tcp}"}}
            if docker_env is not None:
                subjects["docker"] = docker_env
            seconds: dict[str, list[float]] = {subject: [] for subject in subjects}
            for number in range(pulls + 1):  # the first of each warms up
                for subject, env in subjects.items():
                    took_s = await pull_s(host, env)
                    say(f"{number}: {subject} {took_s:.2f} s")
                    seconds[subject] += [took_s] if number else []
            for subject, values in seconds.items():
                line = {"bench": "pull", "subject": subject, "size_mb": size_mb}
                line |= {"compressed_mb": round(sent_bytes / 1e6), "layers": LAYERS}
                print(json.dumps(line | spread(values, "s", 2)), flush=True)
            found = ratio(seconds["slipway"], seconds.get("docker", []))
            print(json.dumps({"bench": "pull", "subject": "ratio", "slipway_to_docker": found}))


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PULLS,
            int(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_MB,
        )
    )
