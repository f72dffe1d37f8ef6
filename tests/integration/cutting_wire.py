"""A wire between engine and agent that breaks once, after a given number of bytes."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from enum import StrEnum

from app.guest.memory_stream import memory_stream_pair

Connection = tuple[StreamReader, StreamWriter]


class Way(StrEnum):
    """Which direction is counted."""

    TO_GUEST = "to-guest"
    TO_HOST = "to-host"


class CuttingWire:
    """Relays each connection; the first to carry `cut_after_bytes` on `way` ends right there.

    Nothing more passes on it in either direction, and what was under way is lost.

    Args:
        has_stale_tail: The rest of what was being delivered to the host comes first on the next
            connection, as QEMU does with a half-sent buffer.
    """

    def __init__(
        self,
        connect_agent: Callable[[], Awaitable[Connection]],
        way: Way,
        cut_after_bytes: int,
        *,
        has_stale_tail: bool = False,
    ) -> None:
        self.has_cut = False
        self.connection_count = 0
        self.cut_after_bytes = cut_after_bytes
        self._connect_agent = connect_agent
        self._way = way
        self._has_stale_tail = has_stale_tail
        self._left_bytes = cut_after_bytes
        self._tail = b""
        self._relays: set[asyncio.Task[None]] = set()

    async def connect(self) -> Connection:
        """What the channel calls: `Vm.open_channel`."""
        agent = await self._connect_agent()
        self.connection_count += 1
        near, far = memory_stream_pair()
        relay = asyncio.get_running_loop().create_task(self._relay(near, agent))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        return far

    async def close(self) -> None:
        """End the relays and wait for them."""
        relays = list(self._relays)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    async def _relay(self, host: Connection, agent: Connection) -> None:
        try:
            if self._tail:
                host[1].write(self._tail)
                self._tail = b""
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(self._pump(host[0], agent[1], Way.TO_GUEST)),
                    group.create_task(self._pump(agent[0], host[1], Way.TO_HOST)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
        finally:
            for _, writer in (host, agent):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if way is self._way and not self.has_cut:
                    if len(data) > self._left_bytes:
                        self.has_cut = True
                        writer.write(data[: self._left_bytes])
                        if way is Way.TO_HOST and self._has_stale_tail:
                            self._tail = data[self._left_bytes :]
                        return
                    self._left_bytes -= len(data)
                writer.write(data)
                await writer.drain()
