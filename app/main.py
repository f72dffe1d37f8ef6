"""The application: engine, REST and dashboard in one process; names the concrete hypervisor."""

import asyncio
import errno
import gc
import logging
import os
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal, TypedDict, cast

import uvicorn
from fastapi import FastAPI

from app import __version__
from app.api.app import MOUNT_PATH, create_api
from app.api.metrics import router as metrics_router
from app.assembly import Machine
from app.core.errors import Conflict, InvalidArgument
from app.docker_api.app import create_docker_app
from app.docker_api.server import COMMON_SOCKET, DockerListening, DockerSockets, serve_docker
from app.engine import run_engine
from app.guest.frames import FrameParser
from app.guest.handshake import resync
from app.guest.image import GuestImage, build_guest
from app.hypervisor.port import ProbeGuest
from app.hypervisor.qemu.hypervisor import QemuHypervisor
from app.resources import guest_dir
from app.services.bundle import Services
from app.settings import Settings
from app.storage.data_directory import DataDirectoryLock
from app.web.router import install as install_web
from app.web.router import router as web_router

SHUTDOWN_GRACE_S = 5
PROBE_HELLO_TIMEOUT_S = 60.0  # the probe's own deadline is shorter
WEBSOCKET_LIMIT_BYTES = 64 * 1024

Say = Callable[[str], None]
OnReady = Callable[[Services], Awaitable[None]]


class State(TypedDict):
    """What the lifespan gives to every request."""

    services: Services


def create_app(
    settings: Settings,
    machine: Machine,
    *,
    on_ready: OnReady | None = None,
    on_stop: OnReady | None = None,
    docker: DockerSockets | None = None,
) -> FastAPI:
    """Build the application; the engine begins and ends with its lifespan.

    Args:
        settings: As read by the caller.
        machine: What runs VMs.
        on_ready: Called once the engine serves.
        on_stop: Called before it ends.
        docker: Where to serve the Docker API, which begins and ends with the engine too.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(run_engine(settings, machine))
            if docker is not None:
                await stack.enter_async_context(serve_docker(create_docker_app(services), docker))
            if on_ready is not None:
                await on_ready(services)
            try:
                yield {"services": services}
            finally:
                await web.close()
                if on_stop is not None:
                    await on_stop(services)

    app = FastAPI(
        title="Slipway", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.include_router(metrics_router)
    app.mount(MOUNT_PATH, create_api(__version__))
    app.include_router(web_router)
    web = install_web(app, settings)
    return app


def build_hypervisor(settings: Settings, guest: GuestImage | None) -> QemuHypervisor:
    """QEMU, with the shipped guest as the proof of what boots; without one, to find and end VMs."""
    probe_guest = None
    if guest is not None:
        probe_guest = ProbeGuest(
            kernel=guest.kernel,
            initrd=guest.initrd,
            cmdline=guest.cmdline,
            key=guest.key,
            is_alive=_agent_answers,
        )
    return QemuHypervisor(
        run_root=settings.data_dir / "v",
        probe_guest=probe_guest,
        accelerator=cast(Literal["auto", "kvm", "tcg"], settings.accelerator),
        user=settings.qemu_user,
    )


async def _agent_answers(reader: StreamReader, writer: StreamWriter) -> bool:
    await resync(reader, writer, FrameParser(), timeout_s=PROBE_HELLO_TIMEOUT_S)
    return True


async def prepare_machine(settings: Settings, *, say: Say) -> Machine:
    """What runs VMs here: builds the guest if its inputs have changed, and finds the accelerator.

    Each step that takes a while is said before and after, with its time.

    Raises:
        SlipwayError: A prerequisite is missing; the advice is the cure.
    """
    started_at = time.monotonic()
    guest = await build_guest(
        guest_dir() / "slipway.yml",
        cache_dir=settings.data_dir / "guest",
        agent_source_dir=guest_dir() / "agent",
        progress=lambda line: say(f"== Guest: {line} ..."),
    )
    say(f"== Guest: kernel {guest.kernel_version} is ready ({_since(started_at)})")
    started_at = time.monotonic()
    hypervisor = build_hypervisor(settings, guest)
    version = await hypervisor.version()
    accelerator = await hypervisor.accelerator()
    say(f"== QEMU {version}: {accelerator.name} ({_since(started_at)})")
    return Machine(hypervisor, version, guest)


def _since(started_at: float) -> str:
    return f"{time.monotonic() - started_at:.1f} s"


async def serve(settings: Settings, *, say: Say) -> int:
    """Run engine and faces until SIGINT or SIGTERM; returns the process's exit code.

    Args:
        settings: As read by the caller.
        say: Prints one line for the operator.

    Raises:
        Conflict: The port or the data directory is in use.
        SlipwayError: A prerequisite is missing; the advice is the cure.
    """
    url = _url(settings)

    async def greet(services: Services) -> None:
        lock.publish(_local_url(settings))
        _spare_collector()
        for line in await greeting(services, url, docker.hosts):
            say(line)

    async def part(services: Services) -> None:
        for line in await farewell(services):
            say(line)

    lock = await asyncio.to_thread(DataDirectoryLock.take, settings.data_dir)
    with ExitStack() as stack:
        stack.enter_context(lock)
        listener = stack.enter_context(_bind(settings))
        docker = await asyncio.to_thread(DockerSockets.bind, docker_listening(settings))
        stack.callback(docker.close)
        machine = await prepare_machine(settings, say=say)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings, machine, on_ready=greet, on_stop=part, docker=docker),
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
                ws_max_size=WEBSOCKET_LIMIT_BYTES,
                lifespan="on",
            )
        )
        await server.serve(sockets=[listener])
        return 0 if server.started else 1


def _spare_collector() -> None:
    """Keep what is there from the beginning out of the garbage collector's walks.

    Code, models and templates of pages are most of all objects: a full collection that goes over
    them too takes the engine a tenth of a second, in the middle of somebody's start.
    """
    gc.collect()
    gc.freeze()


def docker_listening(settings: Settings) -> DockerListening:
    """Where the Docker API is served; root's first engine also has the machine's common path."""

    def path(value: str) -> Path | None:
        return Path(value) if value else None

    return DockerListening(
        data_dir=settings.data_dir,
        common=COMMON_SOCKET if os.geteuid() == 0 else None,
        group=settings.docker_group,
        tcp=settings.docker_tcp,
        tls=settings.docker_tls,
        tls_ca=path(settings.docker_tls_ca),
        tls_cert=path(settings.docker_tls_cert),
        tls_key=path(settings.docker_tls_key),
    )


async def greeting(services: Services, url: str, docker_hosts: Sequence[str] = ()) -> list[str]:
    """What the operator reads once the dashboard answers."""
    host = await services.hosts.host()
    lines = [f"Slipway {__version__} serves on {url}", f"  {host.accelerator.reason}"]
    if docker_hosts:
        lines.append(f"  Docker clients: export DOCKER_HOST={docker_hosts[0]}")
    if await services.accounts.setup_required():
        token = await services.accounts.issue_setup_link()
        lines.append(f"  First start: create the admin account at {url}/setup?token={token}")
    else:
        lines.append(f"  Sign in at {url}/sign-in")
    running = sum(each.is_live for each in await services.containers.list())
    if running:
        lines.append(f"  {running} running containers were taken over")
    return lines


async def farewell(services: Services) -> list[str]:
    """What the operator reads when the engine ends."""
    running = sum(each.is_live for each in await services.containers.list())
    if not running:
        return ["Slipway has ended; no container runs."]
    return [
        f"Slipway has ended; {running} containers go on running, their output waits for it.",
        "  End them too: slipway stop --all",
    ]


def _url(settings: Settings) -> str:
    return settings.public_url.rstrip("/") or _local_url(settings)


def _local_url(settings: Settings) -> str:
    """For programs on this machine, from which a proxy may not be reachable."""
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{name}:{settings.port}"


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named. Else an answer in two segments
    # waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen()  # from here on a browser waits, instead of being refused
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {settings.port} of {settings.host} is in use",
                advice="Stop what uses it, or set SLIPWAY_PORT to another port.",
            ) from error
        raise InvalidArgument(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}",
            field="SLIPWAY_HOST",
            advice="Set SLIPWAY_HOST to an address of this machine.",
        ) from error
    return listener
