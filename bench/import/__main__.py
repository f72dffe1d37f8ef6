"""Import speed and memory: a root filesystem of 2 GB, by Slipway and by umoci in the same run.

Prints one JSON line per result. Usage: PYTHONPATH=. python bench/import [size in MiB]
"""

import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from app.core.units import MIB
from app.oci.store import ImageStore
from app.oci.tar_reader import EntryKind
from app.oci.tar_writer import END_MARK, padding, tar_header

FILE_BYTES = 256 * 1024
SMALL_FILES_PER_LARGE = 8
DEFAULT_SIZE_MIB = 2048


def make_tar(size_bytes: int) -> Iterator[bytes]:
    """Half-compressible content in files of 256 KiB, and some small ones, as images have."""
    seed = bytes(range(256)) * 512
    made_bytes = number = 0
    while made_bytes < size_bytes:
        directory = f"data/{number // 100}".encode()
        if number % 100 == 0:
            yield tar_header(directory, EntryKind.DIRECTORY)
        mark = number.to_bytes(8, "big") * 16384
        yield tar_header(
            directory + b"/%d" % number, EntryKind.FILE, mode=0o644, size_bytes=FILE_BYTES
        )
        yield mark + seed
        for small in range(SMALL_FILES_PER_LARGE):
            text = b"%d-%d" % (number, small)
            yield tar_header(
                directory + b"/" + text, EntryKind.FILE, mode=0o644, size_bytes=len(text)
            )
            yield text + padding(len(text))
        made_bytes += FILE_BYTES
        number += 1
    yield END_MARK


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """The file as an upload would bring it."""
    with path.open("rb") as file:
        while data := file.read(256 * 1024):
            yield data


def peak_kib() -> int:
    """Highest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def import_slipway(tar: Path, root: Path) -> None:
    """One import into an empty store."""
    store = ImageStore(root)
    await store.open()
    lag_s = 0.0

    async def watch_lag() -> None:
        nonlocal lag_s
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0.01)
            lag_s = max(lag_s, time.perf_counter() - began_s - 0.01)

    watcher = asyncio.create_task(watch_lag())
    idle_kib = peak_kib()
    began_s = time.perf_counter()
    await store.import_stream(chunks(tar), reference="bench")
    elapsed_s = time.perf_counter() - began_s
    watcher.cancel()
    await store.close()
    report("slipway", tar, elapsed_s, peak_kib() - idle_kib, loop_lag_ms=round(lag_s * 1e3, 1))


def import_umoci(tar: Path, root: Path) -> None:
    """The same by umoci: adds the tar as a layer and unpacks it (what it has in place of disks)."""
    if shutil.which("umoci") is None:
        print(json.dumps({"bench": "import", "subject": "umoci", "note": "not installed"}))
        return
    layout = root / "layout"
    for command in (["init", "--layout", layout], ["new", "--image", f"{layout}:bench"]):
        subprocess.run(["umoci", *map(str, command)], check=True)
    began_s = time.perf_counter()
    subprocess.run(["umoci", "raw", "add-layer", "--image", f"{layout}:bench", tar], check=True)
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{layout}:bench", root / "bundle"], check=True
    )
    elapsed_s = time.perf_counter() - began_s
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    report("umoci add-layer + unpack", tar, elapsed_s, peak)


def report(subject: str, tar: Path, elapsed_s: float, rss_kib: int, **more: float) -> None:
    """One result as one JSON line."""
    size = tar.stat().st_size
    print(
        json.dumps(
            {
                "bench": "import",
                "subject": subject,
                "size_mib": size // MIB,
                "seconds": round(elapsed_s, 2),
                "mb_per_s": round(size / 1e6 / elapsed_s, 1),
                "peak_rss_mib": round(rss_kib / 1024, 1),
                **more,
            }
        ),
        flush=True,
    )


def main() -> None:
    """Run the bench."""
    size_bytes = int(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_SIZE_MIB) * MIB
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as directory:
        tar = Path(directory) / "rootfs.tar"
        with tar.open("wb") as file:
            file.writelines(make_tar(size_bytes))
        asyncio.run(import_slipway(tar, Path(directory) / "store"))
        shutil.rmtree(Path(directory) / "store")
        import_umoci(tar, Path(directory))


if __name__ == "__main__":
    main()
