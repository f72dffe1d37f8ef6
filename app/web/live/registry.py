"""Which websockets are open, so that a sign-out and the end of the engine reach them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SOCKETS_PER_SESSION = 32


class Closable(Protocol):
    """A websocket as the registry sees it."""

    async def close(self, code: int, reason: str) -> None:
        """End it; never raises."""


class LiveSockets:
    """Open websockets by session token."""

    def __init__(self) -> None:
        self._sockets: dict[str, set[Closable]] = {}

    def has_room(self, session_token: str) -> bool:
        """Whether the session may open one more."""
        return len(self._sockets.get(session_token, ())) < SOCKETS_PER_SESSION

    @contextmanager
    def registered(self, session_token: str, socket: Closable) -> Iterator[None]:
        """Known while inside."""
        sockets = self._sockets.setdefault(session_token, set())
        sockets.add(socket)
        try:
            yield
        finally:
            sockets.discard(socket)
            if not sockets:
                self._sockets.pop(session_token, None)

    async def close_session(self, session_token: str) -> None:
        """The session ended: its tabs go to the sign-in (4401)."""
        for socket in list(self._sockets.get(session_token, ())):
            await socket.close(4401, "Signed out")

    async def close(self) -> None:
        """The engine ends: tabs come back by themselves (1012, service restart)."""
        for sockets in list(self._sockets.values()):
            for socket in list(sockets):
                await socket.close(1012, "Restarting")
