"""The Docker API of an engine over the fake machine, on a real socket, and the real docker CLI."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.docker_api.app import create_docker_app
from app.docker_api.server import DockerListening, DockerSockets, serve_docker
from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S

DOCKER = shutil.which("docker")
needs_docker_cli = pytest.mark.skipif(DOCKER is None, reason="the docker CLI is not installed")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


class DockerClient:
    """The docker CLI with an own configuration directory."""

    def __init__(self, host: str, config_dir: Path) -> None:
        self.host = host
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(config_dir),
            "DOCKER_CONFIG": str(config_dir),
            "DOCKER_HOST": host,
            "DOCKER_BUILDKIT": "0",
        }

    async def start(self, *args: str, **more: str) -> asyncio.subprocess.Process:
        """Start a command with pipes."""
        assert DOCKER is not None
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            DOCKER, *args, stdin=pipe, stdout=pipe, stderr=pipe, env={**self.env, **more}
        )

    async def run(
        self, *args: str, stdin: bytes = b"", deadline_s: float = DEADLINE_S, **more: str
    ) -> Ran:
        """Run a command to its end."""
        process = await self.start(*args, **more)
        try:
            async with asyncio.timeout(deadline_s):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"docker {args} hangs: {out!r} {err!r}") from None
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def ok(self, *args: str, stdin: bytes = b"", deadline_s: float = DEADLINE_S) -> str:
        """Run a command that must succeed; gives its output."""
        ran = await self.run(*args, stdin=stdin, deadline_s=deadline_s)
        assert ran.code == 0, f"docker {args}: {ran}"
        return ran.out


@asynccontextmanager
async def docker_served(services: Services, **listening: str | Path) -> AsyncIterator[DockerClient]:
    """Serve an engine's Docker API on a unix socket of a short path and as asked."""
    directory = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))
    try:
        sockets = DockerSockets.bind(DockerListening(data_dir=directory, **listening))  # type: ignore[arg-type]
        async with serve_docker(create_docker_app(services), sockets):
            yield DockerClient(sockets.hosts[-1], directory)
    finally:
        shutil.rmtree(directory)
