"""The sockets of the Docker Engine API: made, guarded against a second engine, removed."""

import contextlib
import errno
import fcntl
import grp
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from app.core.errors import Conflict, InvalidArgument, SlipwayError, Unavailable

SOCKET_NAME = "docker.sock"
SOCKET_MODE = 0o660
PATH_LIMIT_BYTES = 107
BACKLOG = 512
PROBE_TIMEOUT_S = 2.0


class UnixListener:
    """A listening unix socket at a path, which goes with it.

    Attributes:
        path: Where clients find it.
        socket: Listening already: clients wait until they are served.
    """

    def __init__(self, path: Path, listener: socket.socket, lock: int | None) -> None:
        self.path = path
        self.socket = listener
        self._lock = lock
        self._identity = _identity(path)

    @classmethod
    def bind(cls, path: Path, *, group: str = "", lock: int | None = None) -> Self:
        """Listen at `path`; a file that an engine left behind is replaced.

        The socket is made beside it and renamed, so that nobody finds it with other permissions.

        Raises:
            Conflict: Somebody listens there.
            InvalidArgument: There is no such group.
            Unavailable: It can't be made.
        """
        group_id = _group_id(group)
        if _is_answered(path):
            raise Conflict(
                f"Another process answers on {path}",
                advice="Stop it, or set SLIPWAY_DATA_DIR to another directory.",
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with _short(path.parent) as directory:
                made.unlink(missing_ok=True)
                listener.bind(f"{directory}/{made.name}")
                if group_id is not None:
                    os.chown(made, -1, group_id)
                made.chmod(SOCKET_MODE)
                listener.listen(BACKLOG)
                made.replace(path)
        except OSError as exc:
            listener.close()
            made.unlink(missing_ok=True)
            raise Unavailable(
                f"Can't listen on {path}: {exc.strerror or exc}",
                advice="Correct the permissions of its directory, and the group if one is set.",
            ) from exc
        return cls(path, listener, lock)

    def close(self) -> None:
        """Stop listening and remove the file, unless another one is there meanwhile."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def bind_common(path: Path, *, group: str = "") -> UnixListener | None:
    """Listen at a path that all engines of the machine would like; None if another one has it.

    A lock beside it says whose it is, so that a second engine never takes it from a first.

    Raises:
        InvalidArgument: There is no such group.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return UnixListener.bind(path, group=group, lock=lock)
    except (BlockingIOError, Conflict, Unavailable):
        os.close(lock)
        return None
    except SlipwayError:
        os.close(lock)
        raise


def bind_tcp(address: str, *, field: str, loopback_only: bool) -> socket.socket:
    """Listen on `HOST:PORT`; HOST is an IP address.

    Raises:
        InvalidArgument: It is no such address, or not a loopback one where that is asked for.
        Conflict: The port is in use.
    """
    host, port = _parse(address, field)
    if loopback_only and not host.is_loopback:
        raise InvalidArgument(
            f"{field} is {address}: without TLS the Docker API listens on a loopback address only",
            field=field,
            advice="Whoever reaches it owns the engine. Use 127.0.0.1, or set up TLS.",
        )
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(host), port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} of {host} is in use",
                advice=f"Stop what uses it, or set {field} to another port.",
            ) from exc
        raise InvalidArgument(
            f"Can't listen on {address}: {exc.strerror or exc}",
            field=field,
            advice=f"Set {field} to an address of this machine.",
        ) from exc
    return listener


def _parse(address: str, field: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as exc:
        raise InvalidArgument(
            f"{field} is {address!r}, which is no IP address with a port",
            field=field,
            advice="Write it as 127.0.0.1:2375 or [::1]:2375.",
        ) from exc
    if not 0 <= number <= 65_535:
        raise InvalidArgument(f"{field} names port {number}, which does not exist", field=field)
    return parsed, number


def _group_id(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise InvalidArgument(
            f"There is no group {group!r}",
            field="SLIPWAY_DOCKER_GROUP",
            advice=f"Make it: groupadd --system {group}",
        ) from exc


def _is_answered(path: Path) -> bool:
    """Whether somebody listens at a path."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"{path} is not a socket", advice="Move it away.")
    except FileNotFoundError:
        return False
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        _short(path.parent) as directory,
    ):
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(f"{directory}/{path.name}")
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # full, or not ours to ask: somebody has it
            return True
    return True


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[Path]:
    """A name of a directory that leaves room within the limit of a socket's path."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
