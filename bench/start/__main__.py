"""Lives of containers that print a line: Slipway by REST, Docker by its API, in turn.

A life is create, start, first output, exit, remove, each a request of its own. Modes: `warm` (every
timed start finds a full pool), `empty` (no pool: clones on demand), `cold` (no template: a kernel
boots). Each mode has an engine of its own, and a Docker Engine beside it. Then, in `warm` and
`empty`: lives back to back without waiting for anything, and starts at once.

Prints one JSON line per result; ends with an error if a start took another path than its mode's.
Usage: PYTHONPATH=. python bench/start [--runs 200] [--cold-runs 20] [--modes warm empty cold]
[--at-once 20] [--bursts 5] [--memory-mib 0]
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.units import MIB
from bench.engines import docker, slipway
from bench.figures import emit, ratio, say, spread
from bench.peers import (
    HELLO,
    DockerPeer,
    Life,
    Peer,
    SlipwayPeer,
    docker_peer,
    launch,
    live,
    tell_machine,
)

WARM_UP_RUNS = 3
BLOCKS = 5  # back to back the engines take turns in so many blocks
PROGRESS_RUNS = 20
P50_TARGETS = {"warm": 0.5, "empty": 1.2}
P99_TARGET = 2.0  # times its own p50
NO_POOL = {"SLIPWAY_POOL_SIZE": "0"}


@dataclass(frozen=True)
class Mode:
    """What starts find."""

    name: str
    start_path: str
    settings: dict[str, str] = field(default_factory=dict)


MODES = {
    mode.name: mode
    for mode in (
        Mode("warm", "pool"),
        Mode("empty", "clone", NO_POOL),
        Mode("cold", "boot", NO_POOL | {"SLIPWAY_TEMPLATES": "false"}),
    )
}


@dataclass
class Field:
    """Where a mode is measured: the engines, and which paths our starts took."""

    mode: Mode
    ours: SlipwayPeer
    theirs: DockerPeer | None
    memory_bytes: int

    @property
    def peers(self) -> list[Peer]:
        """Those that are there, ours first."""
        return [self.ours] if self.theirs is None else [self.ours, self.theirs]

    def report(self, name: str, **values: object) -> None:
        """Print one result of this mode."""
        emit("start", f"{self.mode.name}: {name}", **values)

    def compare(self, name: str, values_ms: dict[str, list[float]], **more: object) -> None:
        """Print the same result of each engine, ours with its share of Docker's."""
        for peer in self.peers:
            line: dict[str, object] = dict(spread(values_ms[peer.name], "ms"))
            if peer is self.ours:
                line["times_docker_p50"] = ratio(values_ms["slipway"], values_ms.get("docker", ()))
                line |= more
            self.report(f"{peer.name} {name}", **line)


def report_lives(field_: Field, lives: dict[str, list[Life]]) -> None:
    """Totals, steps, and the stages of our starts."""
    name = field_.mode.name
    totals = {peer: [life.total_ms for life in each] for peer, each in lives.items()}
    firsts = {peer: [life.first_line_ms for life in each] for peer, each in lives.items()}
    paths = Counter(life.start_path for life in lives["slipway"])
    field_.compare(
        "life",
        totals,
        paths=paths,
        target_times_docker_p50=P50_TARGETS.get(name),
        target_p99_times_p50=P99_TARGET,
    )
    field_.compare("create to first line", firsts)
    for peer, each in lives.items():
        for step in each[0].steps_ms:
            field_.report(f"{peer} {step}", **spread([life.steps_ms[step] for life in each], "ms"))
    stages: dict[str, list[float]] = {}
    for life in lives["slipway"]:
        for stage, duration_ms in life.boot_stages_ms.items():
            stages.setdefault(stage, []).append(duration_ms)
    medians = {stage: round(statistics.median(each), 1) for stage, each in stages.items()}
    field_.report("slipway stages of start, median", stages_ms=medians)


async def alternate(field_: Field, runs: int) -> dict[str, list[Life]]:
    """Timed lives in turn; each begins with a full pool, and Docker's too, so none refills then."""
    lives: dict[str, list[Life]] = {peer.name: [] for peer in field_.peers}
    for number in range(runs):
        for peer in field_.peers:
            await field_.ours.until_ready()
            lives[peer.name].append(await live(peer, field_.memory_bytes))
        if (number + 1) % PROGRESS_RUNS == 0:
            say(f"start, {field_.mode.name}: {number + 1} of {runs} lives")
    return lives


async def back_to_back(field_: Field, runs: int) -> None:
    """Lives per second of each, one after the other without waiting for the pool."""
    elapsed_s = {peer.name: 0.0 for peer in field_.peers}
    paths: Counter[str] = Counter()
    per_block = max(runs // BLOCKS, 1)
    for block in range(BLOCKS):
        for peer in field_.peers:
            await field_.ours.until_ready()
            lives = []
            for _ in range(per_block):
                lives.append(await live(peer, field_.memory_bytes))
            elapsed_s[peer.name] += sum(life.total_ms for life in lives) / 1000
            if peer is field_.ours:
                paths.update(life.start_path for life in lives)
        say(f"start, {field_.mode.name}: block {block + 1} of {BLOCKS} back to back")
    count = per_block * BLOCKS
    for peer_name, seconds in elapsed_s.items():
        more = {"paths": paths} if peer_name == "slipway" else {}
        per_s = round(count / seconds, 2)
        field_.report(f"{peer_name} back to back", runs=count, starts_per_s=per_s, **more)


async def until_hello(peer: Peer, memory_bytes: int) -> tuple[str, float]:
    """Start a container; gives its id, and when its line was here."""
    container_id = await launch(peer, HELLO, memory_bytes)
    output = b""
    async for piece in peer.log(container_id):
        output += piece
        if b"hello\n" in output:
            return container_id, time.monotonic()
    raise SystemExit(f"{peer.name}: no line from {container_id}, but {output!r}")


async def burst(peer: Peer, at_once: int, memory_bytes: int) -> tuple[float, list[str]]:
    """Milliseconds until the last of containers that are started at once has printed; their ids."""
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(until_hello(peer, memory_bytes)) for _ in range(at_once)]
    printed = [task.result() for task in tasks]
    ids = [container_id for container_id, _ in printed]
    for container_id in ids:
        await peer.wait(container_id)
        await peer.remove(container_id)
    return (max(at_s for _, at_s in printed) - began_s) * 1000, ids


async def bursts(field_: Field, rounds: int, at_once: int) -> None:
    """Starts at once, by turns."""
    values_ms: dict[str, list[float]] = {peer.name: [] for peer in field_.peers}
    paths: Counter[str] = Counter()
    for number in range(rounds):
        for peer in field_.peers:
            await field_.ours.until_ready()
            last_ms, ids = await burst(peer, at_once, field_.memory_bytes)
            values_ms[peer.name].append(last_ms)
            if peer is field_.ours:
                paths.update([await peer.start_path(container_id) for container_id in ids])
        say(f"start, {field_.mode.name}: burst {number + 1} of {rounds}")
    name = f"{at_once} at once, last line"
    field_.compare(name, values_ms, paths=paths, target_times_docker_p50=1.0)


async def measure(field_: Field, options: argparse.Namespace) -> bool:
    """Everything of one mode; false if a timed start took another path than it should."""
    is_cold = field_.mode.start_path == "boot"
    runs = options.cold_runs if is_cold else options.runs
    for peer in field_.peers:
        for _ in range(1 if is_cold else WARM_UP_RUNS):
            await live(peer, field_.memory_bytes)
    lives = await alternate(field_, runs)
    report_lives(field_, lives)
    if not is_cold:
        await back_to_back(field_, runs)
        if options.bursts:
            await bursts(field_, options.bursts, options.at_once)
    others = {life.start_path for life in lives["slipway"]} - {field_.mode.start_path}
    if others:
        say(f"start, {field_.mode.name}: starts went by {', '.join(map(repr, sorted(others)))}")
    return not others


async def run_mode(mode: Mode, options: argparse.Namespace) -> bool:
    """Start the engines for a mode and measure it; false as `measure` says."""
    say(f"start, {mode.name}: starting the engines")
    async with slipway(mode.settings) as engine, docker() as env, docker_peer(env) as theirs:
        ours = SlipwayPeer(engine)
        if mode.start_path != "boot" and not await ours.until_template():
            emit("start", f"{mode.name}: skipped", reason="the engine made no template")
            return False
        host = await ours.host()
        if mode.start_path == "pool" and not (host.get("pool") or {}).get("size"):
            emit("start", f"{mode.name}: skipped", reason="the engine has no pool")
            return False
        version = await theirs.version() if theirs else None
        await tell_machine("start", ours, mode=mode.name, docker=version)
        return await measure(Field(mode, ours, theirs, options.memory_mib * MIB), options)


async def run_modes(options: argparse.Namespace) -> None:
    """One after the other."""
    went: list[bool] = [await run_mode(MODES[name], options) for name in options.modes]
    if not all(went):
        raise SystemExit("Not every mode was measured as it should be.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench/start")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--cold-runs", type=int, default=20)
    parser.add_argument("--modes", nargs="+", choices=tuple(MODES), default=list(MODES))
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--bursts", type=int, default=5, help="0: none")
    parser.add_argument("--memory-mib", type=int, default=0, help="0: the VM's default size")
    asyncio.run(run_modes(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
