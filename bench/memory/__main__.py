"""A container allocates 512 MiB and frees them: what its VM costs before, at the peak and after.

The memory is a buffer of `dd` that is written in full, held while the reader of its output waits,
and freed as it exits; PSS is that of the VM's process.

Prints one JSON line per result. As root. Usage: PYTHONPATH=. python bench/memory [--runs 5]
[--after-s 30]
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.figures import emit, say, spread
from bench.peers import SlipwayPeer, launch, require_root, slipway_peer, tell_machine
from bench.processes import resident

MB = 1_000_000
ALLOCATED_MIB = 512
HOLD_S = 8
SETTLE_S = 5.0
SAMPLE_S = 0.25
TARGET_MB = 60
LEAST_RISE_MB = 450  # below it the buffer was not there
SCRIPT = (
    f"dd if=/dev/zero bs={ALLOCATED_MIB}M count=1 2>/dev/null | "
    f"{{ sleep {HOLD_S}; cat > /dev/null; }}"
)


@dataclass(frozen=True)
class Tide:
    """PSS of one VM."""

    before_mb: float
    peak_mb: float
    after_mb: float


def pss_mb(pid: int) -> float:
    return resident(pid).pss_bytes / MB


@asynccontextmanager
async def watching(pid: int) -> AsyncIterator[list[float]]:
    """Samples of the PSS that are taken meanwhile."""
    samples: list[float] = []

    async def sample() -> None:
        while True:
            samples.append(await asyncio.to_thread(pss_mb, pid))
            await asyncio.sleep(SAMPLE_S)

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def tide_once(peer: SlipwayPeer, after_s: float) -> Tide:
    """One container of the default shape."""
    container_id = await launch(peer, ("sleep", "1000000"))
    pid = next(vm["pid"] for vm in await peer.vms() if vm["container_id"] == container_id)
    await asyncio.sleep(SETTLE_S)
    before_mb = pss_mb(pid)
    async with watching(pid) as samples:
        await peer.exec(container_id, ("sh", "-c", SCRIPT))
    await asyncio.sleep(after_s)
    after_mb = pss_mb(pid)
    await peer.remove(container_id)
    if max(samples) - before_mb < LEAST_RISE_MB:
        raise SystemExit(f"PSS rose from {before_mb:.0f} MB to {max(samples):.0f} MB only")
    return Tide(before_mb, max(samples), after_mb)


async def run(options: argparse.Namespace) -> None:
    """An engine for it, one container after the other."""
    require_root()
    async with slipway_peer("memory") as peer:
        await tell_machine("memory", peer)
        tides = []
        for number in range(options.runs):
            tides.append(await tide_once(peer, options.after_s))
            say(f"memory: {number + 1} of {options.runs}: {tides[-1]}")
    emit("memory", "PSS before", **spread([tide.before_mb for tide in tides], "mb"))
    emit("memory", "PSS at the peak", **spread([tide.peak_mb for tide in tides], "mb"))
    emit(
        "memory",
        f"PSS {options.after_s:g} s after, over that before",
        **spread([tide.after_mb - tide.before_mb for tide in tides], "mb"),
        target_mb=TARGET_MB,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/memory")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--after-s", type=float, default=30.0)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
