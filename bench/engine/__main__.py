"""What the engine itself costs: CPU time of its process for each request of a container's life.

Create, start, wait, logs (all of them, after the end) and remove, each a request; the requests of a
life follow each other at once, so that all CPU time of a life is somebody's: what goes on in the
background meanwhile counts for the request it fell into, and nothing is subtracted. The VMs'
processes are not counted. Docker's engine in turn, over its own API: dockerd and the containerd it
has begun, without shims and runc, which are what QEMU is to us.

`between lives` is what follows until the next life may begin: a pool's refilling, with the requests
that ask for its state. `idle` is a second without any request, `memory` the process before and
after all lives.

Prints one JSON line per result. Usage: PYTHONPATH=. python bench/engine [--runs 200]
[--idle-s 20] [--no-pool]
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.engines import docker, slipway
from bench.figures import emit, ratio, say, spread
from bench.peers import HELLO, Peer, SlipwayPeer, docker_peer, tell_machine
from bench.processes import Resident, children, command_name, cpu_clock_ms, resident

OPERATIONS = ("create", "start", "wait", "logs", "remove")
TARGET_MS = 15
WARM_UP_RUNS = 5
PROGRESS_RUNS = 20
NO_POOL = {"SLIPWAY_POOL_SIZE": "0"}


class CpuMeter:
    """CPU time of an engine's processes since it was last read."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._last_ms = self._total_ms()

    def read_ms(self) -> float:
        """What was used since; the next reading begins here."""
        last_ms, self._last_ms = self._last_ms, self._total_ms()
        return self._last_ms - last_ms

    def _total_ms(self) -> float:
        return sum(map(cpu_clock_ms, self._pids))


class Subject:
    """An engine that is measured.

    Args:
        peer: Its API.
        pids: The processes that are the engine itself.
    """

    def __init__(self, peer: Peer, pids: list[int]) -> None:
        self.peer = peer
        self.spent_ms: dict[str, list[float]] = {}
        self.container_ids: list[str] = []
        self._pids = pids
        self.resident_before = self.resident()

    async def warm_up(self) -> None:
        """First lives, which are not counted."""
        for _ in range(WARM_UP_RUNS):
            await self.live()
        self.spent_ms.clear()
        self.container_ids.clear()
        self.resident_before = self.resident()

    async def live(self) -> None:
        """A life, request by request, and what follows it."""
        meter = CpuMeter(self._pids)
        container_id = await self.peer.create(HELLO)
        self._note("create", meter)
        await self.peer.start(container_id)
        self._note("start", meter)
        await self.peer.wait(container_id)
        self._note("wait", meter)
        output = b"".join([piece async for piece in self.peer.log(container_id)])
        self._note("logs", meter)
        await self.peer.remove(container_id)
        self._note("remove", meter)
        await self.peer.until_ready()
        self._note("between lives", meter)
        self.container_ids.append(container_id)
        if b"hello\n" not in output:
            raise SystemExit(f"{self.peer.name}: no line from {container_id}, but {output!r}")

    def lives_ms(self) -> list[float]:
        """Each life's requests together."""
        by_request = (self.spent_ms[name] for name in OPERATIONS)
        return [sum(life) for life in zip(*by_request, strict=True)]

    async def idle(self, window_s: float) -> float:
        """CPU time for each second in which nothing is asked."""
        meter = CpuMeter(self._pids)
        await asyncio.sleep(window_s)
        return meter.read_ms() / window_s

    def resident(self) -> Resident:
        """Memory of all its processes."""
        found = [resident(pid) for pid in self._pids]
        return Resident(sum(one.rss_bytes for one in found), sum(one.pss_bytes for one in found))

    def _note(self, request: str, meter: CpuMeter) -> None:
        self.spent_ms.setdefault(request, []).append(meter.read_ms())


def docker_pids(env: Mapping[str, str]) -> list[int]:
    """The daemon of `bench.engines.docker`, and the containerd that it has begun."""
    pid_file = Path(env["DOCKER_HOST"].removeprefix("unix://")).with_name("pid")
    pid = int(pid_file.read_text())
    return [pid, *(child for child in children(pid) if command_name(child) == "containerd")]


def report(subject: Subject, theirs: Subject | None) -> None:
    """A line for each request, for whole lives, and for what is between them."""
    values_ms = subject.spent_ms | {"life": subject.lives_ms()}
    for name in (*OPERATIONS, "life", "between lives"):
        more: dict[str, object] = {}
        if theirs is not None and name != "between lives":
            compared = theirs.spent_ms | {"life": theirs.lives_ms()}
            more["times_docker_p50"] = ratio(values_ms[name], compared[name])
        if subject.peer.name == "slipway" and name in OPERATIONS:
            more["target_p50_cpu_ms"] = TARGET_MS
        line = spread(values_ms[name], "cpu_ms", digits=2)
        emit("engine", f"{subject.peer.name} {name}", **line, **more)


def report_memory(subject: Subject) -> None:
    """How much the processes have grown."""
    emit(
        "engine",
        f"{subject.peer.name} memory",
        lives=len(subject.container_ids),
        before=subject.resident_before.as_mb(),
        after=subject.resident().as_mb(),
    )


async def measure(subjects: list[Subject], runs: int, idle_s: float) -> None:
    """Lives in turn, each engine left alone by the other's, then both at rest."""
    for subject in subjects:
        await subject.warm_up()
    for number in range(runs):
        for subject in subjects:
            await subject.live()
        if (number + 1) % PROGRESS_RUNS == 0:
            say(f"engine: {number + 1} of {runs} lives")
    theirs = next((one for one in subjects if one.peer.name == "docker"), None)
    for subject in subjects:
        report(subject, theirs if theirs is not subject else None)
        report_memory(subject)
    for subject in subjects:
        idle_ms = await subject.idle(idle_s)
        emit("engine", f"{subject.peer.name} idle", window_s=idle_s, cpu_ms_per_s=round(idle_ms, 2))
    for subject in subjects:
        paths = Counter([await subject.peer.start_path(one) for one in subject.container_ids])
        if subject.peer.name == "slipway":
            emit("engine", "slipway paths", paths=paths)


async def run(options: argparse.Namespace) -> None:
    """Both engines for it."""
    settings = NO_POOL if options.no_pool else {}
    async with slipway(settings) as engine, docker() as env, docker_peer(env) as theirs:
        ours = SlipwayPeer(engine)
        if not await ours.until_template():
            say("engine: there is no template, starts boot a kernel")
        subjects = [Subject(ours, [engine.pid])]
        if env is not None and theirs is not None:
            subjects.append(Subject(theirs, docker_pids(env)))
        await tell_machine("engine", ours, docker=await theirs.version() if theirs else None)
        await measure(subjects, options.runs, options.idle_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/engine")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--no-pool", action="store_true", help="clones on demand")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
