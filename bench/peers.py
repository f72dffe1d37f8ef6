"""Containers over the APIs of Slipway and of Docker, by the same steps, so that they compare."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from bench.engines import Engine, slipway
from bench.figures import emit_machine, say

TIMEOUT_S = 300.0
READY_DEADLINE_S = 120.0
IMAGE = "busybox"
HELLO = ("echo", "hello")
POLL_S = 0.05


@dataclass(frozen=True)
class Life:
    """One container from its creation to its removal: how long each step took."""

    steps_ms: Mapping[str, float]
    start_path: str = ""
    boot_stages_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_ms(self) -> float:
        """All steps."""
        return sum(self.steps_ms.values())

    @property
    def first_line_ms(self) -> float:
        """From the request to create it until its first output is here."""
        return sum(self.steps_ms[name] for name in ("create", "start", "output"))


class Peer(Protocol):
    """An engine's API."""

    name: str

    async def create(self, command: Sequence[str], memory_bytes: int = 0) -> str:
        """Create a container; gives its id."""

    async def start(self, container_id: str) -> dict[str, float]:
        """Start it; gives the start's stages in ms, where they are told."""

    def log(self, container_id: str) -> AsyncIterator[bytes]:
        """Its output from the first byte until it has ended, in pieces."""

    async def wait(self, container_id: str) -> None:
        """Wait for its end."""

    async def stop(self, container_id: str) -> None:
        """Stop signal, and wait for its end."""

    async def remove(self, container_id: str) -> None:
        """Remove it, running or not."""

    async def start_path(self, container_id: str) -> str:
        """How it came to its VM; empty without VMs. Also after its removal."""

    async def until_ready(self) -> None:
        """Wait until the next start finds what it may hope for."""


async def _checked(client: httpx2.AsyncClient, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401
    answer = await client.request(method, path, **more)
    if answer.is_error:
        raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json() if answer.content else None


class _HttpPeer:
    """What both APIs call alike."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def wait(self, container_id: str) -> None:
        """Wait for its end."""
        await _checked(self._client, "POST", f"/containers/{container_id}/wait")

    async def stop(self, container_id: str) -> None:
        """Stop signal, and wait for its end."""
        await _checked(self._client, "POST", f"/containers/{container_id}/stop")

    async def _stream(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[bytes]:
        async with self._client.stream("GET", path, params=dict(parameters)) as answer:
            answer.raise_for_status()
            async for piece in answer.aiter_bytes():
                yield piece


class SlipwayPeer(_HttpPeer):
    """Slipway by REST."""

    name = "slipway"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.client)
        self.engine = engine

    async def host(self) -> dict[str, Any]:
        """The host's document."""
        document: dict[str, Any] = await _checked(self._client, "GET", "/hosts/local")
        return document

    async def vms(self) -> list[dict[str, Any]]:
        """The VMs of running containers."""
        documents: list[dict[str, Any]] = await _checked(self._client, "GET", "/vms")
        return documents

    async def create(self, command: Sequence[str], memory_bytes: int = 0) -> str:
        """Create a container; gives its id."""
        body = {"image": IMAGE, "command": list(command), "memory_bytes": memory_bytes}
        return str((await _checked(self._client, "POST", "/containers", json=body))["id"])

    async def start(self, container_id: str) -> dict[str, float]:
        """Start it; gives the start's stages."""
        document = await _checked(self._client, "POST", f"/containers/{container_id}/start")
        return {stage["name"]: stage["duration_ms"] for stage in document["boot_stages"]}

    def log(self, container_id: str) -> AsyncIterator[bytes]:
        """Its output until it has ended."""
        path = f"/containers/{container_id}/logs"
        return self._stream(path, {"follow": "true", "format": "text"})

    async def remove(self, container_id: str) -> None:
        """Remove it, running or not."""
        path = f"/containers/{container_id}"
        await _checked(self._client, "DELETE", path, params={"force": "true"})

    async def exec(self, container_id: str, command: Sequence[str]) -> None:
        """Run a command in it to its end."""
        path = f"/containers/{container_id}/exec"
        answer = await self._client.post(path, json={"command": list(command)})
        answer.raise_for_status()
        if not answer.text.rstrip().endswith('"exit_code":0}'):
            raise SystemExit(f"{command}: {answer.text}")

    async def start_path(self, container_id: str) -> str:
        """By the journal, which outlives the container."""
        events = await _checked(self._client, "GET", "/events", params={"actor_id": container_id})
        return next(
            (str(one["attributes"]["path"]) for one in events if one["action"] == "start"), ""
        )

    async def until_ready(self) -> None:
        """Wait until no template is in the making and the pool is full, if there are any."""
        await self._until_host(is_ready)

    async def until_template(self) -> bool:
        """Wait until clones can be made; false if there is no template in time."""
        try:
            await self._until_host(has_template)
        except TimeoutError:
            return False
        return True

    async def _until_host(self, condition: Callable[[Mapping[str, Any]], bool]) -> None:
        async with asyncio.timeout(READY_DEADLINE_S):
            while True:
                if condition(await self.host()):
                    return
                await asyncio.sleep(POLL_S)


def has_template(host: Mapping[str, Any]) -> bool:
    """Whether clones can be made."""
    return any(one["state"] == "ready" for one in host["templates"])


def is_ready(host: Mapping[str, Any]) -> bool:
    """Whether nothing is in the making that starts would use."""
    if any(one["state"] == "building" for one in host["templates"]):
        return False
    pool = host.get("pool")
    return pool is None or pool["waiting"] >= pool["size"]


class DockerPeer(_HttpPeer):
    """A Docker Engine by its own API, on its socket."""

    name = "docker"

    async def version(self) -> str:
        """Of the engine."""
        return str((await _checked(self._client, "GET", "/version"))["Version"])

    async def create(self, command: Sequence[str], memory_bytes: int = 0) -> str:
        """Create a container without a network; gives its id."""
        body = {
            "Image": IMAGE,
            "Cmd": list(command),
            "HostConfig": {"NetworkMode": "none", "Memory": memory_bytes},
        }
        return str((await _checked(self._client, "POST", "/containers/create", json=body))["Id"])

    async def start(self, container_id: str) -> dict[str, float]:
        """Start it."""
        await _checked(self._client, "POST", f"/containers/{container_id}/start")
        return {}

    def log(self, container_id: str) -> AsyncIterator[bytes]:
        """Its output until it has ended, with the headers of Docker's frames."""
        return self._stream(f"/containers/{container_id}/logs", {"follow": "1", "stdout": "1"})

    async def remove(self, container_id: str) -> None:
        """Remove it, running or not."""
        await _checked(self._client, "DELETE", f"/containers/{container_id}", params={"force": "1"})

    async def start_path(self, container_id: str) -> str:  # noqa: ARG002
        """There is no VM."""
        return ""

    async def until_ready(self) -> None:
        """It always is."""


@asynccontextmanager
async def slipway_peer(bench: str) -> AsyncIterator[SlipwayPeer]:
    """A Slipway whose starts are clones, if it has templates at all."""
    say(f"{bench}: starting the engine")
    async with slipway() as engine:
        peer = SlipwayPeer(engine)
        if not await peer.until_template():
            say(f"{bench}: there is no template, starts boot a kernel")
        yield peer


async def tell_machine(bench: str, peer: SlipwayPeer, **more: object) -> None:
    """Print what the figures that follow were measured on."""
    host = await peer.host()
    emit_machine(
        bench,
        accelerator=host["accelerator"],
        hypervisor=f"{host['hypervisor']} {host['hypervisor_version']}",
        slipway=host["slipway_version"],
        **more,
    )


@asynccontextmanager
async def docker_peer(env: Mapping[str, str] | None) -> AsyncIterator[DockerPeer | None]:
    """The API of the Docker Engine of an environment; None without one."""
    if env is None:
        yield None
        return
    transport = httpx2.AsyncHTTPTransport(uds=env["DOCKER_HOST"].removeprefix("unix://"))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://docker", timeout=TIMEOUT_S
    ) as client:
        yield DockerPeer(client)


class _Steps:
    """Times steps that follow one another."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._began_s = time.monotonic()

    def end(self, name: str) -> None:
        """A step is over, the next one begins."""
        now_s = time.monotonic()
        self.ms[name] = (now_s - self._began_s) * 1000
        self._began_s = now_s


async def live(peer: Peer, memory_bytes: int = 0) -> Life:
    """A container that prints a line and exits, from its creation to its removal."""
    steps = _Steps()
    container_id = await peer.create(HELLO, memory_bytes)
    steps.end("create")
    stages_ms = await peer.start(container_id)
    steps.end("start")
    output = b""
    async for piece in peer.log(container_id):
        output += piece
        if b"hello\n" in output and "output" not in steps.ms:
            steps.end("output")
    if "output" not in steps.ms:
        raise SystemExit(f"{peer.name}: no line from {container_id}, but {output!r}")
    await peer.wait(container_id)
    steps.end("exit")
    await peer.remove(container_id)
    steps.end("remove")
    return Life(steps.ms, await peer.start_path(container_id), stages_ms)


async def launch(peer: Peer, command: Sequence[str], memory_bytes: int = 0) -> str:
    """Create and start a container; gives its id."""
    container_id = await peer.create(command, memory_bytes)
    await peer.start(container_id)
    return container_id


def require_root() -> None:
    """Other users can't read the memory of VMs, nor run a Docker Engine.

    Raises:
        SystemExit: We are not root.
    """
    if os.geteuid() != 0:
        raise SystemExit("Run it as root: it reads the memory of the VMs' processes.")
