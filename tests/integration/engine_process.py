"""A real `slipway serve` as a process of its own, with real VMs, driven over REST."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, cast

import httpx2

from app.guest.image import build_guest
from tests.integration.agent_lab import AGENT_SOURCE, guest_cache

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 30.0
CALL_DEADLINE_S = 60.0
STATE_DEADLINE_S = 60.0

Json = dict[str, Any]
SLIPWAY = Path(sys.executable).with_name("slipway")


def free_port() -> int:
    """A TCP port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def build_shared_guest(directory: Path) -> Path:
    """The shipped guest's cache directory, built once for all engines of the test run."""
    cache = guest_cache(directory)
    await build_guest(
        AGENT_SOURCE.parent / "slipway.yml",
        cache_dir=cache,
        agent_source_dir=AGENT_SOURCE,
        progress=lambda _line: None,
    )
    return cache


class EngineProcess:
    """One data directory; `start` and `kill` as often as wanted.

    Leaving the context ends the engine and every VM of it.
    """

    def __init__(self, root: Path, guest: Path) -> None:
        self.data_dir = root / "data"
        self.data_dir.mkdir(mode=0o700)
        (self.data_dir / "guest").symlink_to(guest)
        self.port = free_port()
        self.setup_url = ""
        self._log = root / "engine.log"
        self._process: Process | None = None
        self._client: httpx2.AsyncClient | None = None
        self._token = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.run_command("stop", "--all")
            if self._process is not None and self._process.returncode is None:
                await self.terminate()
        finally:
            if self._client is not None:
                await self._client.aclose()

    @property
    def env(self) -> dict[str, str]:
        """Environment of the engine and of commands to it."""
        return os.environ | {
            "SLIPWAY_DATA_DIR": str(self.data_dir),
            "SLIPWAY_PORT": str(self.port),
            "SLIPWAY_ACCELERATOR": "tcg",
            "SLIPWAY_MEMORY_RESERVE_BYTES": "0",
        }

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The engine's process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the engine; returns once it serves."""
        with self._log.open("ab") as log:
            offset = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                SLIPWAY, "serve",
                env=self.env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=STDOUT,
                start_new_session=True,
            )  # fmt: skip
        await self._until_greeting(offset)
        if not self._token:
            self._token = (await self.run_command("token", "create", "test")).split()[-1]
            self._client = httpx2.AsyncClient(
                base_url=f"{self.url}/api/v1",
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=CALL_DEADLINE_S,
            )

    async def _until_greeting(self, offset: int) -> None:
        """The engine writes to a file (a pipe would tie its life to ours): look until it greets."""
        assert self._process is not None
        async with asyncio.timeout(START_DEADLINE_S):
            while True:
                text = (await asyncio.to_thread(self._log.read_bytes))[offset:].decode()
                if link := re.search(r"http\S+/setup\?token=\S+", text):
                    self.setup_url = link.group()
                if link or "/sign-in" in text:
                    return
                if self._process.returncode is not None:
                    raise AssertionError(f"The engine did not start:\n{text}")
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """SIGTERM, as systemd and ^C do."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(STOP_DEADLINE_S):
            await self._process.wait()

    async def run_command(self, *arguments: str) -> str:
        """Run `slipway …` on the data directory; gives its output."""
        process = await asyncio.create_subprocess_exec(
            SLIPWAY, *arguments, env=self.env, stdout=PIPE, stderr=STDOUT
        )
        async with asyncio.timeout(CALL_DEADLINE_S):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    # --- REST --------------------------------------------------------------------------------

    @property
    def client(self) -> httpx2.AsyncClient:
        """A client with a token."""
        assert self._client is not None
        return self._client

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """One call that must succeed; gives the decoded answer."""
        answer = await self.client.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def until_template(self) -> Json:
        """Wait until starts are clones; gives the template as shown."""
        async with asyncio.timeout(60):
            while True:
                for template in (await self.call("GET", "/hosts/local"))["templates"]:
                    if template["state"] == "ready":
                        return cast(Json, template)
                await asyncio.sleep(0.05)

    async def until_waiting(self, count: int) -> Json:
        """Wait until so many VMs wait in the pool, or more; gives the pool as shown."""
        async with asyncio.timeout(60):
            while True:
                pool: Json | None = (await self.call("GET", "/hosts/local"))["pool"]
                if pool is not None and pool["waiting"] >= count:
                    return pool
                await asyncio.sleep(0.05)

    async def launch(self, *command: str, **more: object) -> Json:
        """Create and start a container of the starter image."""
        body = {"image": "busybox", "command": list(command), **more}
        container: Json = await self.call("POST", "/containers", params={"start": True}, json=body)
        assert container["state"] in {"running", "exited", "stopping"}, container
        return container

    async def until(self, container_id: str, condition: Callable[[Json], bool]) -> Json:
        """Wait for a state of a container: look at each event, with a deadline."""
        async with (
            asyncio.timeout(STATE_DEADLINE_S),
            self.client.stream("GET", "/events/stream", timeout=None) as events,
        ):
            news = asyncio.Event()

            async def listen() -> None:
                async for _ in events.aiter_lines():
                    news.set()

            listening = asyncio.create_task(listen())
            try:
                while True:
                    news.clear()
                    container: Json = await self.call("GET", f"/containers/{container_id}")
                    if condition(container):
                        return container
                    with contextlib.suppress(TimeoutError):  # some changes are no events
                        async with asyncio.timeout(0.5):
                            await news.wait()
            finally:
                listening.cancel()
                await asyncio.wait({listening})

    async def until_exited(self, container_id: str) -> Json:
        """Wait until it has ended."""
        return await self.until(container_id, lambda container: container["state"] == "exited")

    async def exec(self, container_id: str, *command: str, **more: object) -> tuple[int, str]:
        """Run a command in a container; gives exit code and output."""
        answer = await self.client.post(
            f"/containers/{container_id}/exec", json={"command": list(command), **more}
        )
        assert answer.is_success, answer.text
        pieces = [json.loads(line) for line in answer.text.splitlines()]
        text = "".join(piece.get("text", "") for piece in pieces)
        return pieces[-1]["exit_code"], text

    async def log(self, container_id: str) -> list[str]:
        """Every line so far; numbers must be complete and unique."""
        answer = await self.client.get(f"/containers/{container_id}/logs")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        return [line["text"] for line in lines]

    async def follow(self, container_id: str) -> AsyncIterator[str]:
        """Lines as they come."""
        async with self.client.stream(
            "GET", f"/containers/{container_id}/logs", params={"follow": True}, timeout=None
        ) as log:
            async for line in log.aiter_lines():
                yield json.loads(line)["text"]
