"""The QMP monitor of one VM, by qemu.qmp; its exceptions end here."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from app.core.errors import DeadlineExceeded, Unavailable
from app.hypervisor.qemu.sockets import connect_unix

COMMAND_DEADLINE_S = 10.0  # a host that swaps answers slowly
READ_LIMIT_BYTES = 1024 * 1024

OnEvent = Callable[[str, Mapping[str, Any]], None]

# Each of its errors is raised again as ours; its own log lines would only repeat them.
_quiet = logging.getLogger(f"{__name__}.wire")
_quiet.disabled = True


class QmpRefused(Unavailable):
    """QEMU answered a command with an error; the message ends in QEMU's own words.

    Attributes:
        description: QEMU's words alone.
    """

    def __init__(self, message: str, *, description: str) -> None:
        super().__init__(message)
        self.description = description


class _Callback(EventListener):
    """Hands events on at once instead of queueing them without a bound."""

    def __init__(self, on_event: OnEvent) -> None:
        super().__init__()
        self._on_event = on_event

    async def put(self, event: Message) -> None:
        data = event.get("data", {})
        self._on_event(str(event["event"]), data if isinstance(data, dict) else {})


class _Client(QMPClient):
    """Does not put each message into words for a log that is off."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class Monitor:
    """A connection that may be lost and made again."""

    def __init__(self, vm_id: str, on_event: OnEvent) -> None:
        self._vm_id = vm_id
        self._on_event = on_event
        self._client: QMPClient | None = None
        self._socket: socket.socket | None = None
        self._fd_lock = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent."""
        return self._client is not None and self._client.runstate is Runstate.RUNNING

    async def connect(self, address: str, *, deadline_s: float) -> None:
        """Connect and negotiate.

        Raises:
            Unavailable: Nobody listens, or the process ended meanwhile.
            DeadlineExceeded: QEMU did not greet, since it is busy with another client or stuck.
        """
        await self.close()
        what = f"The monitor of VM {self._vm_id}"
        try:
            async with asyncio.timeout(deadline_s):
                client = self._new_client()
                sock = await connect_unix(address, what=what, deadline_s=deadline_s)
                try:
                    await client.connect(sock)
                except BaseException:
                    sock.close()  # qemu.qmp may not have come as far as to take it
                    raise
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"{what} did not greet within {deadline_s:g} s",
                advice="Another program may be connected to it.",
            ) from exc
        except QMPError as exc:
            raise Unavailable(f"{what} cannot be used: {exc}") from exc
        self._client, self._socket = client, sock

    def _new_client(self) -> QMPClient:
        client = _Client(f"vm-{self._vm_id}", readbuflen=READ_LIMIT_BYTES)
        client.logger = _quiet
        queueing, client.events = client.events, _Callback(self._on_event)
        client.register_listener(client.events)
        client.remove_listener(queueing)
        return client

    async def wait_lost(self) -> None:
        """Wait until the connection has ended."""
        client = self._client
        while client is not None and client.runstate is Runstate.RUNNING:
            await client.runstate_changed()

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a command.

        Raises:
            QmpRefused: QEMU says no.
            DeadlineExceeded: No answer; whether it was carried out is unknown.
            Unavailable: No connection, or it was lost before the answer.
        """
        if self._client is None or not self.is_connected:
            raise Unavailable(f"The monitor of VM {self._vm_id} is not connected")
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                return await self._client.execute(command, arguments)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"VM {self._vm_id} did not answer {command} within {COMMAND_DEADLINE_S:g} s"
            ) from exc
        except ExecuteError as exc:
            description = exc.error.error.desc
            raise QmpRefused(
                f"VM {self._vm_id}: QEMU refused {command}: {description}", description=description
            ) from exc
        except QMPError as exc:
            raise Unavailable(f"VM {self._vm_id} was lost during {command}: {exc}") from exc

    async def add_fd(self, fd: int, *, fdset: int, opaque: str) -> None:
        """Give QEMU a descriptor as `/dev/fdset/<fdset>`; ours stays open.

        Raises:
            As `execute()`.
        """
        await self._send_fd(fd, "add-fd", {"fdset-id": fdset, "opaque": opaque})

    async def name_fd(self, fd: int, name: str) -> None:
        """Give QEMU a descriptor under a name; ours stays open. Raises as `execute()`."""
        await self._send_fd(fd, "getfd", {"fdname": name})

    async def _send_fd(self, fd: int, command: str, arguments: Mapping[str, object]) -> None:
        async with self._fd_lock:  # QEMU pairs a descriptor with the next command
            if self._client is None or not self.is_connected:
                raise Unavailable(f"The monitor of VM {self._vm_id} is not connected")
            try:
                self._client.send_fd_scm(fd)
            except (OSError, QMPError) as exc:
                raise Unavailable(f"VM {self._vm_id} took no descriptor: {exc}") from exc
            await self.execute(command, arguments)

    async def close(self) -> None:
        """Disconnect; no-op without a connection."""
        client, self._client = self._client, None
        if client is None or self._socket is None:
            return
        with contextlib.suppress(OSError):
            # Else a QEMU that reads nothing could hold the disconnect up for ever.
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            await client.disconnect()
        except (QMPError, EOFError, OSError) as exc:
            _quiet.debug("disconnected: %s", exc)
