"""How long `stop` of a process takes that exits on SIGTERM, and then `remove`; Docker in turn.

The process is a shell that waits, with `trap 'exit 0' TERM`: its own exit is a matter of
microseconds natively, and is not subtracted, so what is printed bounds "over its own exit" from
above. Ours answers once the container's end is recorded; so does Docker.

Prints one JSON line per result. Usage: PYTHONPATH=. python bench/stop [--runs 50]
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field

from bench.engines import docker
from bench.figures import emit, ratio, say, spread
from bench.peers import Peer, docker_peer, launch, slipway_peer, tell_machine

SCRIPT = "trap 'exit 0' TERM; echo ready; sleep 1000000 & wait"
TARGET_MS = 50
PROGRESS_RUNS = 10


@dataclass
class Ends:
    """Times of one engine."""

    stop_ms: list[float] = field(default_factory=list)
    remove_ms: list[float] = field(default_factory=list)


async def until_trapped(peer: Peer, container_id: str) -> None:
    """The signal has its handler once the process has said so."""
    output = b""
    async for piece in peer.log(container_id):
        output += piece
        if b"ready\n" in output:
            return
    raise SystemExit(f"{peer.name}: {container_id} is not ready: {output!r}")


async def end_once(peer: Peer, ends: Ends) -> None:
    """One container, from its readiness to its removal."""
    container_id = await launch(peer, ("sh", "-c", SCRIPT))
    await until_trapped(peer, container_id)
    began_s = time.monotonic()
    await peer.stop(container_id)
    stopped_s = time.monotonic()
    await peer.remove(container_id)
    ends.stop_ms.append((stopped_s - began_s) * 1000)
    ends.remove_ms.append((time.monotonic() - stopped_s) * 1000)


async def measure(peers: list[Peer], runs: int) -> None:
    """In turn, after a warm-up of each."""
    for peer in peers:
        await end_once(peer, Ends())
    ends = {peer.name: Ends() for peer in peers}
    for number in range(runs):
        for peer in peers:
            for one in peers:
                await one.until_ready()
            await end_once(peer, ends[peer.name])
        if (number + 1) % PROGRESS_RUNS == 0:
            say(f"stop: {number + 1} of {runs}")
    theirs = ends.get("docker", Ends())
    for name, each in ends.items():
        for step, values, others in (
            ("stop", each.stop_ms, theirs.stop_ms),
            ("remove", each.remove_ms, theirs.remove_ms),
        ):
            more: dict[str, object] = {}
            if name == "slipway":
                more = {"target_ms": TARGET_MS, "times_docker_p50": ratio(values, others)}
            emit("stop", f"{name} {step}", **spread(values, "ms"), **more)


async def run(runs: int) -> None:
    """Both engines for it."""
    async with slipway_peer("stop") as ours, docker() as env, docker_peer(env) as theirs:
        await tell_machine("stop", ours, docker=await theirs.version() if theirs else None)
        await measure([ours] if theirs is None else [ours, theirs], runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/stop")
    parser.add_argument("--runs", type=int, default=50)
    asyncio.run(run(parser.parse_args().runs))


if __name__ == "__main__":
    main()
