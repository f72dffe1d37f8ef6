"""Lines per second from a guest to the store and to a websocket; Docker's json-file as the peer.

Prints one JSON line per result. Usage: PYTHONPATH=. python bench/logs [lines]
"""

import asyncio
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from websockets.asyncio.client import connect

from bench.engines import Engine, docker, run_command, slipway

DEFAULT_LINES = 100_000
TIMEOUT_S = 600.0
LATENCY_LINES = 50
TIME_US = 1  # place of the time in a line as the dashboard is sent it


def report(name: str, **values: object) -> None:
    """Print one result."""
    print(json.dumps({"bench": "logs", "name": name, **values}), flush=True)


async def sign_in(engine: Engine) -> str:
    """Create the admin; gives the session's Cookie header."""
    async with httpx2.AsyncClient(base_url=engine.url) as browser:
        page = await browser.get("/setup", params={"token": engine.setup_token})
        fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', page.text))
        fields |= {"name": "bench", "password": "only for a benchmark", "token": engine.setup_token}
        await browser.post("/setup", data=fields, headers={"Origin": engine.url})
        return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


@dataclass
class Viewer:
    """What a tab has been sent."""

    lines: int = 0
    gap_lines: int = 0
    last_at_s: float = 0.0
    delays_ms: list[float] = field(default_factory=list)

    def take(self, message: dict[str, Any]) -> None:
        """Count one message."""
        for line in message.get("lines", ()):
            self.lines += 1
            self.delays_ms.append((time.time() - line[TIME_US] / 1e6) * 1000)
        if "gap" in message:
            first, last = message["gap"]
            self.gap_lines += last - first + 1
        self.last_at_s = time.monotonic()


async def watch(engine: Engine, cookie: str, container_id: str, count: int) -> Viewer:
    """Be a tab until `count` lines were sent or told as a gap."""
    viewer = Viewer()
    url = engine.url.replace("http", "ws") + "/ws"
    headers = {"Cookie": cookie, "Origin": engine.url}
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        await socket.send(json.dumps({"op": "sub", "topic": f"log:{container_id}", "after": 0}))
        async with asyncio.timeout(TIMEOUT_S):
            while viewer.lines + viewer.gap_lines < count:
                viewer.take(json.loads(await socket.recv()))
    return viewer


async def run(engine: Engine, cookie: str, command: list[str], count: int) -> tuple[float, Viewer]:
    """Run a container with a viewer; seconds from its start to its end in the record."""
    body = {"image": "busybox", "command": command}
    created = (await engine.client.post("/containers", json=body)).json()
    path = f"/containers/{created['id']}"
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(engine, cookie, created["id"], count))
        await engine.client.post(f"{path}/start")
        began_s = time.monotonic()
        await engine.client.post(f"{path}/wait", timeout=TIMEOUT_S)
        elapsed_s = time.monotonic() - began_s
    log = await engine.client.get(f"{path}/logs", params={"format": "text"}, timeout=TIMEOUT_S)
    assert len(log.text.splitlines()) == count, "lines were lost"
    await engine.client.delete(path, params={"force": True})
    return elapsed_s, watching.result()


async def measure_slipway(lines: int) -> None:
    """Throughput, then the delay of single lines."""
    async with slipway() as engine:
        cookie = await sign_in(engine)
        elapsed_s, viewer = await run(engine, cookie, ["seq", str(lines)], lines)
        report(
            "slipway guest to store",
            lines=lines,
            lines_per_s=round(lines / elapsed_s),
            sent_to_viewer=viewer.lines,
            told_as_gap=viewer.gap_lines,
        )
        script = f"for i in $(seq {LATENCY_LINES}); do echo $i; sleep 0.2; done"
        _, viewer = await run(engine, cookie, ["sh", "-c", script], LATENCY_LINES)
        ordered = sorted(viewer.delays_ms)
        report(
            "slipway write to websocket",
            lines=LATENCY_LINES,
            median_ms=round(statistics.median(ordered), 1),
            p95_ms=round(ordered[int(len(ordered) * 0.95)], 1),
        )


async def measure_docker(lines: int) -> None:
    """The same flood through json-file, read back by `docker logs`."""
    async with docker() as env:
        if env is None:
            return
        argv = ["docker", "run", "-d", "--net", "none", "busybox", "seq", str(lines)]
        container_id = (await run_command(*argv, env=env)).strip()
        began_s = time.monotonic()
        await run_command("docker", "wait", container_id, env=env)
        elapsed_s = time.monotonic() - began_s
        log = await run_command("docker", "logs", container_id, env=env)
        assert len(log.splitlines()) == lines
        report("docker json-file", lines=lines, lines_per_s=round(lines / elapsed_s))


async def main(lines: int) -> None:
    """Both, one after the other."""
    await measure_slipway(lines)
    await measure_docker(lines)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_LINES))
