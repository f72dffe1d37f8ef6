"""From the launch to the first line: Slipway by REST, Docker natively in the same run.

Prints one JSON line per result. Usage: PYTHONPATH=. python bench/start [runs]
"""

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict

from bench.engines import Engine, docker, slipway

DEFAULT_RUNS = 20
TEMPLATE_DEADLINE_S = 60


def report(name: str, values_ms: list[float], **more: object) -> None:
    """Print one result."""
    ordered = sorted(values_ms)
    line = {
        "bench": "start",
        "name": name,
        "runs": len(ordered),
        "min_ms": round(ordered[0], 1),
        "median_ms": round(statistics.median(ordered), 1),
        "max_ms": round(ordered[-1], 1),
        **more,
    }
    print(json.dumps(line), flush=True)


async def launch_once(engine: Engine) -> tuple[float, dict[str, float]]:
    """Milliseconds from the request to the first line, and the boot's stages."""
    body = {"image": "busybox", "command": ["sh", "-c", "echo hello; sleep 1000"]}
    began_s = time.monotonic()
    created = (await engine.client.post("/containers", params={"start": True}, json=body)).json()
    path = f"/containers/{created['id']}"
    async with engine.client.stream("GET", f"{path}/logs", params={"follow": True}) as log:
        assert "hello" in await anext(log.aiter_lines())
    total_ms = (time.monotonic() - began_s) * 1000
    vm = (await engine.client.get(f"/vms/{created['vm_id']}")).json()
    assert vm["start_path"] == "clone", vm["start_path"]
    await engine.client.delete(path, params={"force": True})
    return total_ms, {stage["name"]: stage["duration_ms"] for stage in created["boot_stages"]}


async def until_template(engine: Engine) -> dict[str, object]:
    """Wait until starts are clones; gives the host's document."""
    async with asyncio.timeout(TEMPLATE_DEADLINE_S):
        while True:
            host: dict[str, object] = (await engine.client.get("/hosts/local")).json()
            templates = host["templates"]
            if isinstance(templates, list) and any(one["state"] == "ready" for one in templates):
                return host
            await asyncio.sleep(0.1)


async def docker_once(env: dict[str, str]) -> float:
    """Milliseconds until `docker run` has printed its line."""
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        "docker", "run", "--rm", "--net", "none", "busybox", "echo", "hello",
        env=env, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"hello\n"
    total_ms = (time.monotonic() - began_s) * 1000
    await process.wait()
    return total_ms


async def main(runs: int) -> None:
    """Measure in turn, after a warm-up of each."""
    async with slipway() as engine, docker() as env:
        host = await until_template(engine)
        ours: list[float] = []
        theirs: list[float] = []
        stages: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(runs + 1):
            total_ms, by_stage = await launch_once(engine)
            docker_ms = await docker_once(env) if env else None
            if number == 0:
                continue
            ours.append(total_ms)
            for name, duration_ms in by_stage.items():
                stages[name].append(duration_ms)
            if docker_ms is not None:
                theirs.append(docker_ms)
        report("slipway launch to first line", ours, accelerator=host["accelerator"])
        for name, durations_ms in stages.items():
            report(f"slipway stage: {name}", durations_ms)
        if theirs:
            report("docker run to first line", theirs)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_RUNS))
