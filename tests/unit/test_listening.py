"""The dashboard's socket."""

import asyncio
import socket
from pathlib import Path

from app.main import _bind
from app.settings import Settings


async def test_answers_do_not_wait_for_a_delayed_acknowledgement(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        seen.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    server = await asyncio.start_server(accept, sock=_bind(Settings(data_dir=tmp_path, port=port)))
    async with server:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await seen
        writer.close()
        await writer.wait_closed()
