"""Slipway and a Docker Engine as processes with data directories of their own, for benchmarks."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
SLIPWAY = Path(sys.executable).with_name("slipway")


@dataclass(frozen=True)
class Engine:
    """A running Slipway: its REST client, URL, and the secret of its first start's link."""

    client: httpx2.AsyncClient
    url: str
    setup_token: str
    pid: int


async def run_command(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program that must succeed; gives its output."""
    process = await asyncio.create_subprocess_exec(*argv, env=env, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{argv[0]} failed: {output.decode()}")
    return output.decode()


async def _until_in_file(log: Path, pattern: str, process: Process) -> str:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            text = (await asyncio.to_thread(log.read_bytes)).decode(errors="replace")
            if match := re.search(pattern, text):
                return match.group()
            if process.returncode is not None:
                raise SystemExit(f"It did not start:\n{text}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def slipway(settings: Mapping[str, str] | None = None) -> AsyncIterator[Engine]:
    """A Slipway on a free port; SLIPWAY_BENCH_GUEST names a guest cache to use again.

    Args:
        settings: More environment variables for it.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as root:
        data_dir = Path(root) / "data"
        data_dir.mkdir(mode=0o700)
        if cache := os.environ.get("SLIPWAY_BENCH_GUEST"):
            (data_dir / "guest").symlink_to(cache)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        env = os.environ | {"SLIPWAY_DATA_DIR": str(data_dir), "SLIPWAY_PORT": str(port)}
        env |= settings or {}
        log = Path(root) / "log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                SLIPWAY, "serve", env=env, stdin=DEVNULL, stdout=file, stderr=STDOUT
            )
        try:
            link = await _until_in_file(log, r"setup\?token=\S+", process)
            token = (await run_command(SLIPWAY, "token", "create", "bench", env=env)).split()[-1]
            url = f"http://127.0.0.1:{port}"
            async with httpx2.AsyncClient(
                base_url=f"{url}/api/v1",
                headers={"Authorization": f"Bearer {token}"},
                timeout=300,
            ) as client:
                yield Engine(client, url, link.partition("=")[2], process.pid)
        finally:
            with contextlib.suppress(SystemExit):
                await run_command(SLIPWAY, "stop", "--all", "--time", "0", env=env)
            await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def docker() -> AsyncIterator[dict[str, str] | None]:
    """A Docker Engine with a data root of its own and the image `busybox`; None without dockerd.

    Gives the environment for the docker command.
    """
    if not shutil.which("dockerd") or not shutil.which("docker") or os.geteuid() != 0:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="slipway-bench-docker-") as root:
        host = f"unix://{root}/docker.sock"
        log = Path(root) / "log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                "dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec",
                "-H", host, "--pidfile", f"{root}/pid", "--iptables=false", "--bridge=none",
                stdin=DEVNULL, stdout=file, stderr=STDOUT,
            )  # fmt: skip
        env = os.environ | {"DOCKER_HOST": host}
        try:
            await _until_in_file(log, "API listen on", process)
            await _import_busybox(Path(root), env)
            yield env
        finally:
            await _stop(process)


async def _import_busybox(root: Path, env: dict[str, str]) -> None:
    """Give Docker a root filesystem with the machine's own busybox, as the starter image has."""
    tree = root / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in ("sh", "echo", "sleep", "seq", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    await run_command("tar", "-C", tree, "-cf", root / "busybox.tar", ".")
    await run_command("docker", "import", root / "busybox.tar", "busybox:latest", env=env)
