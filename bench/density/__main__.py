"""Many idle containers: what each costs the host, and what starts cost beside them.

Fills one engine with containers of 128 MiB that sleep (base shape: no memory module), measures,
then adds some of the default shape, whose module is what they cost more. Memory is PSS of the VMs'
processes; beside it what the host's available memory fell by, which also holds page tables and
what the kernel keeps for them. Start p50 is that of whole lives in the base shape (bench/start).

Prints one JSON line per result. As root. Usage: PYTHONPATH=. python bench/density
[--containers 200] [--plugged 10] [--window-s 60] [--settle-s 90] [--start-runs 50]
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.core.units import MIB
from app.services.admission import read_memory
from bench.figures import emit, ratio, say, spread
from bench.peers import SlipwayPeer, launch, live, require_root, slipway_peer, tell_machine
from bench.processes import Resident, cpu_s, host_cpu_s, resident

BASE_SHAPE_BYTES = 128 * MIB
SLEEP = ("sleep", "1000000")
AT_ONCE = 4
WARM_UP_RUNS = 3
PROGRESS = 20
MB = 1_000_000
PSS_TARGET_MB = 45
CPU_TARGET_PERCENT = 0.20
START_TARGET_RATIO = 1.5
ENGINE_TARGET_MB = 150


@dataclass(frozen=True)
class Costs:
    """PSS of the VMs of some containers, and of the engine."""

    vms_mb: list[float]
    engine: Resident


async def fill(peer: SlipwayPeer, count: int, memory_bytes: int) -> list[str]:
    """Start containers that sleep, some at a time; gives their ids."""
    ids: list[str] = []
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            ids.append(await launch(peer, SLEEP, memory_bytes))
            if len(ids) % PROGRESS == 0:
                say(f"density: {len(ids)} of {count} containers run")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return ids


async def pids_of(peer: SlipwayPeer, ids: Sequence[str]) -> list[int]:
    """The processes of the VMs of containers."""
    pids = [vm["pid"] for vm in await peer.vms() if vm["container_id"] in set(ids)]
    if len(pids) != len(ids):
        raise SystemExit(f"Of {len(ids)} containers {len(pids)} run")
    return pids


async def weigh(peer: SlipwayPeer, ids: Sequence[str]) -> Costs:
    """Memory of the VMs of containers, and of the engine."""
    pids = await pids_of(peer, ids)
    vms = await asyncio.to_thread(lambda: [resident(pid).pss_bytes / MB for pid in pids])
    return Costs(vms, await asyncio.to_thread(resident, peer.engine.pid))


async def settle(seconds: float, why: str) -> None:
    """Let the host and the guests come to rest: this is a time that is measured, not an event."""
    say(f"density: {seconds:.0f} s until {why}")
    await asyncio.sleep(seconds)


async def measure_idle(peer: SlipwayPeer, ids: Sequence[str], window_s: float) -> None:
    """CPU of the VMs, of the engine and of the whole host while nothing happens."""
    pids = await pids_of(peer, ids)

    def read() -> tuple[float, float, float]:
        return sum(map(cpu_s, pids)), cpu_s(peer.engine.pid), host_cpu_s()

    began_s, before = time.monotonic(), read()
    await settle(window_s, "idle CPU is measured")
    after, elapsed_s = read(), time.monotonic() - began_s
    vms, engine, host = (
        100 * (now - then) / elapsed_s for now, then in zip(after, before, strict=True)
    )
    emit(
        "density",
        "idle CPU, percent of a core",
        containers=len(ids),
        window_s=round(elapsed_s, 1),
        per_container_percent=round(vms / max(len(ids), 1), 3),
        target_percent=CPU_TARGET_PERCENT,
        engine_percent=round(engine, 2),
        whole_host_percent=round(host, 1),
    )


async def measure_starts(peer: SlipwayPeer, runs: int, beside: int) -> list[float]:
    """Whole lives in the base shape, each from a full pool where there is one."""
    for _ in range(WARM_UP_RUNS):
        await live(peer, BASE_SHAPE_BYTES)
    lives = []
    for _ in range(runs):
        await peer.until_ready()
        lives.append(await live(peer, BASE_SHAPE_BYTES))
    totals_ms = [life.total_ms for life in lives]
    paths = Counter(life.start_path for life in lives)
    emit("density", f"life beside {beside} containers", **spread(totals_ms, "ms"), paths=paths)
    return totals_ms


def report_engine(name: str, memory: Resident) -> None:
    emit(
        "density",
        name,
        rss_mb=round(memory.rss_bytes / MB, 1),
        pss_mb=round(memory.pss_bytes / MB, 1),
        target_mb=ENGINE_TARGET_MB,
    )


async def measure(peer: SlipwayPeer, options: argparse.Namespace) -> None:
    """Empty, full, full with some of the other shape."""
    report_engine("engine's memory beside 0 containers", resident(peer.engine.pid))
    alone_ms = await measure_starts(peer, options.start_runs, 0)
    available_bytes = read_memory().available_bytes
    began_s = time.monotonic()
    ids = await fill(peer, options.containers, BASE_SHAPE_BYTES)
    elapsed_s = time.monotonic() - began_s
    emit("density", "filled", containers=len(ids), elapsed_s=round(elapsed_s, 1), at_once=AT_ONCE)
    await settle(options.settle_s, "they have come to rest")
    await measure_idle(peer, ids, options.window_s)
    costs = await weigh(peer, ids)
    taken_mb = (available_bytes - read_memory().available_bytes) / MB
    emit(
        "density",
        "PSS per container, base shape",
        **spread(costs.vms_mb, "mb"),
        mean_mb=round(statistics.mean(costs.vms_mb), 1),
        target_mb=PSS_TARGET_MB,
        host_memory_taken_mb=round(taken_mb / len(ids), 1),
    )
    report_engine(f"engine's memory beside {len(ids)} containers", costs.engine)
    beside_ms = await measure_starts(peer, options.start_runs, len(ids))
    times = ratio(beside_ms, alone_ms)
    emit("density", "start p50, full over empty", times=times, target_times=START_TARGET_RATIO)
    if options.plugged:
        await measure_plugged(peer, ids, options)


async def measure_plugged(
    peer: SlipwayPeer, ids: Sequence[str], options: argparse.Namespace
) -> None:
    """What the memory module of the default shape costs."""
    plugged_ids = await fill(peer, options.plugged, 0)
    await settle(options.settle_s, "those with a module have come to rest")
    base = await weigh(peer, ids)
    plugged = await weigh(peer, plugged_ids)
    module_mb = statistics.mean(plugged.vms_mb) - statistics.mean(base.vms_mb)
    emit(
        "density",
        "PSS per container, default shape",
        **spread(plugged.vms_mb, "mb"),
        mean_mb=round(statistics.mean(plugged.vms_mb), 1),
        module_mb=round(module_mb, 1),
    )


async def run(options: argparse.Namespace) -> None:
    """An engine for it."""
    require_root()
    async with slipway_peer("density") as peer:
        await tell_machine("density", peer)
        await measure(peer, options)
        say("density: ending the containers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/density")
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--plugged", type=int, default=10, help="of the default shape; 0: none")
    parser.add_argument("--window-s", type=float, default=60.0)
    parser.add_argument("--settle-s", type=float, default=90.0)
    parser.add_argument("--start-runs", type=int, default=50)
    options = parser.parse_args()
    if options.containers < 1 or options.start_runs < 1:
        parser.error("at least one container and one start")
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
