"""The servers of the Docker Engine API: one for each socket, in the engine's loop."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from app.core.errors import DeadlineExceeded, InvalidArgument
from app.docker_api.browsers import BrowserGuard
from app.docker_api.hijack import HijackProtocol
from app.docker_api.sockets import SOCKET_NAME, UnixListener, bind_common, bind_tcp
from app.docker_api.tls import make_context, tls_protocol

COMMON_SOCKET = Path("/run/slipway") / SOCKET_NAME
SHUTDOWN_GRACE_S = 2
START_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 300  # Docker closes no idle connection at all
WEBSOCKET_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class DockerListening:
    """Where to listen; empty means not there.

    Attributes:
        data_dir: Its `docker.sock` is always there.
        common: A path that all engines of this machine would like; the first has it.
        group: Group of the unix sockets; empty: the process's.
        tcp: Loopback address and port without TLS.
        tls: Address and port for clients with a certificate that `tls_ca` has signed.
    """

    data_dir: Path
    common: Path | None = None
    group: str = ""
    tcp: str = ""
    tls: str = ""
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass
class DockerSockets:
    """Bound sockets, before anything is served on them; closing removes the files.

    Attributes:
        hosts: What `DOCKER_HOST` may be set to, the shortest unix socket first.
    """

    unix: list[UnixListener] = field(default_factory=list)
    plain: list[socket.socket] = field(default_factory=list)
    encrypted: list[tuple[socket.socket, ssl.SSLContext]] = field(default_factory=list)

    @classmethod
    def bind(cls, listening: DockerListening) -> Self:
        """Bind all sockets, or none.

        Raises:
            Conflict: One is in use.
            InvalidArgument: A setting is wrong.
            Unavailable: A unix socket can't be made.
        """
        with ExitStack() as undo:
            sockets = cls()
            undo.callback(sockets.close)
            if listening.common is not None:
                common = bind_common(listening.common, group=listening.group)
                sockets.unix.extend([common] if common else [])
            own = listening.data_dir / SOCKET_NAME
            sockets.unix.append(UnixListener.bind(own, group=listening.group))
            if listening.tcp:
                sockets.plain.append(
                    bind_tcp(listening.tcp, field="SLIPWAY_DOCKER_TCP", loopback_only=True)
                )
            if listening.tls:
                context = _context(listening)
                bound = bind_tcp(listening.tls, field="SLIPWAY_DOCKER_TLS", loopback_only=False)
                sockets.encrypted.append((bound, context))
            undo.pop_all()
        return sockets

    @property
    def hosts(self) -> list[str]:
        """What `DOCKER_HOST` may be set to."""
        addresses = [*self.plain, *(bound for bound, _ in self.encrypted)]
        return [f"unix://{each.path}" for each in self.unix] + [
            f"tcp://{_shown(each.getsockname())}" for each in addresses
        ]

    def close(self) -> None:
        """Close all and remove the files. Idempotent."""
        for unix in self.unix:
            unix.close()
        for bound in (*self.plain, *(bound for bound, _ in self.encrypted)):
            bound.close()


def _context(listening: DockerListening) -> ssl.SSLContext:
    ca, certificate, key = listening.tls_ca, listening.tls_cert, listening.tls_key
    if ca is None or certificate is None or key is None:
        raise InvalidArgument(
            "SLIPWAY_DOCKER_TLS is set without all of SLIPWAY_DOCKER_TLS_CA, _CERT and _KEY",
            field="SLIPWAY_DOCKER_TLS",
            advice="Clients are known by certificates only: name the authority that signs them, "
            "and the server's own certificate and key.",
        )
    return make_context(ca=ca, certificate=certificate, key=key)


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """Tells when it serves; leaves signals to the dashboard's server."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and say so."""
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serve_docker(app: ASGIApp, sockets: DockerSockets) -> AsyncIterator[None]:
    """Serve `app` on all sockets for as long as the context lasts, then close them.

    At the end streams are closed at once and other requests have SHUTDOWN_GRACE_S.
    """
    servers = [
        *(_server(app, HijackProtocol, each.socket) for each in sockets.unix),
        *(_server(BrowserGuard(app), HijackProtocol, each) for each in sockets.plain),
        *(_server(app, tls_protocol(context), each) for each, context in sockets.encrypted),
    ]
    try:
        serving = [asyncio.create_task(server.serve(sockets=[bound])) for server, bound in servers]
        try:
            await _all_ready([server for server, _ in servers])
            yield
        finally:
            for server, _ in servers:
                server.should_exit = True
            await asyncio.gather(*serving)
    finally:
        sockets.close()


async def _all_ready(servers: list[_Server]) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            for server in servers:
                await server.ready.wait()
    except TimeoutError as exc:
        raise DeadlineExceeded("The Docker API's servers did not start in time") from exc


def _server(
    app: ASGIApp, protocol: type[asyncio.Protocol], bound: socket.socket
) -> tuple[_Server, socket.socket]:
    config = uvicorn.Config(
        app,
        http=protocol,
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        ws_max_size=WEBSOCKET_LIMIT_BYTES,
    )
    return _Server(config), bound
