"""The agent's channel: one connection at a time, over all engines on this host."""

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from contextlib import ExitStack

from app.core.errors import Unavailable
from app.hypervisor.qemu.rundir import RunDirectory
from app.hypervisor.qemu.sockets import connect_unix, open_streams
from app.hypervisor.steps import run_whole

CHANNEL_DEADLINE_S = 5.0


class Channel:
    """Opens connections to the virtio-serial port and holds channel.lock meanwhile.

    QEMU accepts a second client's connection into its backlog and leaves it silent; the lock is
    what tells it apart from a guest that does not answer.
    """

    def __init__(self, vm_id: str, directory: RunDirectory) -> None:
        self._vm_id = vm_id
        self._directory = directory
        self._writer: StreamWriter | None = None
        self._lost: asyncio.Event | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> tuple[StreamReader, StreamWriter]:
        """See Vm.open_channel."""
        async with self._opening:
            await self._wait_last_lost()
            lock_fd = await run_whole(self._directory.take_lock, "channel.lock")
            if lock_fd is None:
                raise Unavailable(
                    f"The channel of VM {self._vm_id} is held by another process",
                    advice="Only one engine can serve a VM; stop the other one.",
                )
            lock = ExitStack()
            lock.callback(os.close, lock_fd)
            try:
                return await self._connect(lock)
            except BaseException:
                lock.close()
                raise

    async def _wait_last_lost(self) -> None:
        if self._lost is None or self._lost.is_set():
            return
        if self._writer is not None and not self._writer.is_closing():
            raise Unavailable(f"The channel of VM {self._vm_id} is held by another connection")
        if self._writer is not None:
            # What was still to be sent goes nowhere once its sender has closed.
            self._writer.transport.abort()
        await self._lost.wait()

    async def _connect(self, lock: ExitStack) -> tuple[StreamReader, StreamWriter]:
        client = await connect_unix(
            self._directory.address("channel.sock"),
            what=f"The channel of VM {self._vm_id}",
            deadline_s=CHANNEL_DEADLINE_S,
        )
        lost = asyncio.Event()

        def on_lost() -> None:
            lock.close()
            self._writer = None
            lost.set()

        reader, writer = await open_streams(client, on_lost)
        self._lost, self._writer = lost, writer
        return reader, writer

    def close(self) -> None:
        """End the connection, if there is one, at once."""
        if self._writer is not None:
            self._writer.transport.abort()
