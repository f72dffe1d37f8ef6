"""One tab's websocket: reads what it asks for, runs a task for each topic, writes one by one."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.core.errors import NotFound, SlipwayError
from app.web.live.topics import Request, Topic, find_topic
from app.web.sessions import Viewer

log = logging.getLogger(__name__)
MESSAGE_LIMIT_CHARACTERS = 4096
TOPICS_LIMIT = 16
BEAT_S = 2.0
SESSION_CHECK_S = 15.0
SEND_TIMEOUT_S = 20.0
CODE_SIGNED_OUT = 4401
CODE_TOO_BIG = 1009
CODE_POLICY = 1008


class Connection:
    """Owns the topics' tasks; `run` returns when the tab is gone, with none of them left."""

    def __init__(
        self,
        websocket: WebSocket,
        request: Request,
        is_signed_in: Callable[[], Awaitable[Viewer | None]],
    ) -> None:
        self._websocket = websocket
        self._request = request
        self._is_signed_in = is_signed_in
        self._topics: dict[str, asyncio.Task[None]] = {}
        self._write_lock = asyncio.Lock()

    async def run(self) -> None:
        """Serve the tab until it goes away or its session ends."""
        watchers = [
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._watch_session()),
        ]
        try:
            await self._read()
        except WebSocketDisconnect:
            pass
        finally:
            await _end([*watchers, *self._topics.values()])

    async def close(self, code: int, reason: str) -> None:
        """Close from our side; the read loop then ends by itself."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._websocket.close(code, reason)
        except (TimeoutError, RuntimeError, WebSocketDisconnect, OSError):
            log.debug("A websocket did not take its close frame")

    async def send(self, message: dict[str, Any]) -> None:
        """Write one message; waits while the tab is slow, and gives it up after SEND_TIMEOUT_S.

        Raises:
            WebSocketDisconnect: The tab is gone.
        """
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S), self._write_lock:
                await self._websocket.send_text(text)
        except (TimeoutError, RuntimeError, OSError) as error:
            await self.close(CODE_POLICY, "Too slow")
            raise WebSocketDisconnect(CODE_POLICY) from error

    async def _read(self) -> None:
        while True:
            text = await self._websocket.receive_text()
            if len(text) > MESSAGE_LIMIT_CHARACTERS:
                await self.close(CODE_TOO_BIG, "Message too long")
                return
            if not await self._obey(text):
                await self.close(CODE_POLICY, "Message not understood")
                return

    async def _obey(self, text: str) -> bool:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(message, dict) or not isinstance(message.get("topic"), str):
            return False
        name: str = message["topic"]
        if message.get("op") == "unsub":
            await self._drop(name)
            return True
        if message.get("op") != "sub":
            return False
        await self._drop(name)
        topic = find_topic(name)
        if topic is None:
            await self.send({"topic": name, "error": "There is no such topic"})
        elif len(self._topics) >= TOPICS_LIMIT:
            await self.send({"topic": name, "error": f"A tab has at most {TOPICS_LIMIT} topics"})
        else:
            self._topics[name] = asyncio.create_task(self._serve(name, topic, message))
        return True

    async def _drop(self, name: str) -> None:
        task = self._topics.pop(name, None)
        if task is not None:
            await _end([task])

    async def _serve(self, name: str, topic: Topic, message: dict[str, Any]) -> None:
        async def send(content: dict[str, Any]) -> None:
            await self.send({"topic": name, **content})

        try:
            await topic(self._request, name.partition(":")[2], message, send)
        except WebSocketDisconnect:
            return
        except NotFound as error:
            await self._say(send, {"gone": error.message})
        except SlipwayError as error:
            await self._say(send, {"error": error.message})
        except Exception:  # the border of a background task: the tab must learn that it is blind
            log.exception("Live topic %s failed", name)
            await self._say(send, {"error": "Live updates of this part failed; reload the page"})

    async def _say(
        self, send: Callable[[dict[str, Any]], Awaitable[None]], content: dict[str, Any]
    ) -> None:
        try:
            await send(content)
        except WebSocketDisconnect:
            return

    async def _beat(self) -> None:
        """Tell the tab that the line is alive, so that it can show the age of what it sees."""
        try:
            while True:
                await self.send({"beat": 1})
                await asyncio.sleep(BEAT_S)
        except WebSocketDisconnect:
            return

    async def _watch_session(self) -> None:
        while True:
            await asyncio.sleep(SESSION_CHECK_S)
            try:
                viewer = await self._is_signed_in()
            except SlipwayError as error:
                log.warning("A websocket's session could not be checked: %s", error.message)
                continue
            if viewer is None:
                await self.close(CODE_SIGNED_OUT, "Session ended")
                return


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
