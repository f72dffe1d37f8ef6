"""An import of any size needs little memory: 2 GB stay under 64 MiB above idle."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.units import GIB, MIB

SIZE_BYTES = 2 * GIB
CEILING_BYTES = 64 * MIB

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from tests.integration.image_lab import open_store
from tests.unit.oci.archives import Item, directory, make_tar, raw_header

FILE = bytes(range(256)) * 8192  # 2 MiB
SIZE_BYTES = int(sys.argv[2])

async def chunks():
    if sys.argv[3] == "image":  # a docker save archive, its one layer streamed
        import hashlib
        digest = hashlib.sha256()
        for part in layer():
            digest.update(part)
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {
            "type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]}}).encode()
        manifest = json.dumps([{"Config": "c", "RepoTags": ["big:1"], "Layers": ["l"]}]).encode()
        yield make_tar(Item("c", config), Item("manifest.json", manifest))[:2048]
        yield raw_header(b"l", b"0", sum(map(len, layer())))
    for part in layer():
        yield part
    yield bytes(1024)

def layer():
    for number in range(SIZE_BYTES // len(FILE)):
        yield raw_header(b"file%d" % number, b"0", len(FILE))
        yield FILE
        for small in range(40):
            yield raw_header(b"small%d-%d" % (number, small))
    yield bytes(1024)

def peak_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        idle = peak_bytes()
        [image] = await store.import_stream(chunks(), reference="big")
        print(json.dumps({"above_idle": peak_bytes() - idle, "size": image.size_bytes}))

asyncio.run(main())
"""


@pytest.fixture
def fast_directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is room: the test is about memory, not the disk."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free > 4 * SIZE_BYTES:
        with tempfile.TemporaryDirectory(dir=shm, prefix="slipway-test-") as directory:
            yield Path(directory)
    elif shutil.disk_usage(tmp_path).free > 4 * SIZE_BYTES:
        yield tmp_path
    else:
        pytest.skip("needs 8 GiB of free disk")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "size_bytes"), [("rootfs", SIZE_BYTES), ("image", SIZE_BYTES // 8)]
)
def test_import_stays_small(fast_directory: Path, kind: str, size_bytes: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(fast_directory), str(size_bytes), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["size"] > size_bytes
    assert result["above_idle"] < CEILING_BYTES
    shutil.rmtree(fast_directory)
    fast_directory.mkdir()
