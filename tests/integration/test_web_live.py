"""The websocket as a browser uses it: a real server, the services in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.core.units import MIB
from app.domain.container import Container, ended
from app.domain.log import LogStream
from app.web.live.logs import TAIL_LINES
from tests.integration.serving import served
from tests.unit.web.conftest import web_app
from tests.unit.web.fake_services import ADMIN, Fakes
from tests.unit.web.fake_stores import now_ns, sample

DEADLINE_S = 10.0


class Tab:
    """One browser tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, **message: object) -> None:
        await self._socket.send(json.dumps(message))

    async def next(self, topic: str, key: str) -> dict[str, Any]:
        """The next message of a topic that has `key`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = json.loads(await self._socket.recv())
                if message.get("topic") == topic and key in message:
                    return message

    async def lines(self, topic: str, count: int) -> list[list[Any]]:
        """So many lines, in the order they came."""
        lines: list[list[Any]] = []
        while len(lines) < count:
            lines += (await self.next(topic, "lines"))["lines"]
        return lines

    async def close_code(self) -> int:
        """Read until the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while True:
                    await self._socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 0


@pytest.fixture
def fakes() -> Fakes:
    fakes = Fakes()
    fakes.images.add("busybox:latest", 4 * MIB, "sh")
    fakes.accounts.users[ADMIN[0]] = ADMIN[1]
    return fakes


@pytest.fixture
async def web(fakes: Fakes) -> AsyncIterator[str]:
    """The dashboard's URL."""
    app = web_app(fakes)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": fakes.services}}, receive, send)

    async with served(with_state) as url:
        yield url
        await app.state.web.close()


@pytest.fixture
async def browser(web: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Signed in."""
    async with httpx2.AsyncClient(base_url=web, headers={"Origin": web}) as client:
        await client.post("/sign-in", data={"name": ADMIN[0], "password": ADMIN[1]})
        yield client


def socket_to(web: str, browser: httpx2.AsyncClient, *, origin: str | None = None) -> connect:
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return connect(
        web.replace("http", "ws") + "/ws",
        additional_headers={"Cookie": cookie, "Origin": origin or web},
        proxy=None,
    )


@pytest.fixture
async def tab(web: str, browser: httpx2.AsyncClient) -> AsyncIterator[Tab]:
    async with socket_to(web, browser) as socket:
        yield Tab(socket)


async def follow(tab: Tab, container: Container, **more: object) -> dict[str, Any]:
    topic = f"log:{container.id}"
    await tab.say(op="sub", topic=topic, **more)
    start: dict[str, Any] = (await tab.next(topic, "start"))["start"]
    return start


async def test_history_joins_live_lines_without_gap_or_repeat(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, *(f"old {number}" for number in range(700)))
    await follow(tab, web)
    for number in range(300):
        fakes.logs.write(web.id, f"new {number}")
    lines = await tab.lines(f"log:{web.id}", 1000)
    assert [line[0] for line in lines] == list(range(1, 1001))


async def test_line_carries_time_and_stream(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, "out <b>", at_ns=1_795_510_800_123_456_789)
    fakes.logs.write(web.id, "err", stream=LogStream.STDERR)
    await follow(tab, web)
    first, second = await tab.lines(f"log:{web.id}", 2)
    assert first == [1, 1_795_510_800_123_456, 0, "out <b>"]
    assert (second[2], second[3]) == (1, "err")


async def test_long_history_begins_at_its_tail(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, *(str(number) for number in range(5000)))
    start = await follow(tab, web)
    assert start == {"after": 5000 - TAIL_LINES, "last": 5000, "resumed": False}
    assert (await tab.lines(f"log:{web.id}", TAIL_LINES))[0][0] == 5000 - TAIL_LINES + 1


async def test_tab_resumes_after_its_last_line(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, *(str(number) for number in range(50)))
    start = await follow(tab, web, after=40)
    assert start["resumed"]
    assert [line[0] for line in await tab.lines(f"log:{web.id}", 10)] == list(range(41, 51))


@pytest.mark.parametrize("after", [99_999, -3, "x", None, True])
async def test_odd_resume_begins_at_the_tail(tab: Tab, fakes: Fakes, after: object) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, "one")
    assert (await follow(tab, web, after=after))["resumed"] is False


async def test_lines_come_in_batches(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, *(str(number) for number in range(1000)))
    await follow(tab, web)
    message = await tab.next(f"log:{web.id}", "lines")
    assert len(message["lines"]) >= 50


async def test_viewer_that_does_not_read_gets_a_gap_and_holds_nobody_up(
    web: str, browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    container = await fakes.launch("web")
    topic = f"log:{container.id}"
    async with socket_to(web, browser) as socket:
        await follow(Tab(socket), container)
        socket.transport.pause_reading()
        for _ in range(60):  # 120 MB: far more than sockets and the viewer's queue hold
            fakes.logs.write(container.id, *(["x" * 2000] * 1000))
            await asyncio.sleep(0)
        socket.transport.resume_reading()
        seen, missed = 0, 0
        async with asyncio.timeout(DEADLINE_S):
            while seen < 60_000:
                message = json.loads(await socket.recv())
                for packed in message.get("lines", []):
                    assert packed[0] == seen + 1
                    seen = packed[0]
                if "gap" in message and message["topic"] == topic:
                    assert message["gap"][0] == seen + 1
                    missed += message["gap"][1] - seen
                    seen = message["gap"][1]
    assert seen == 60_000
    assert 0 < missed < 60_000


async def test_end_of_a_run_is_told_and_the_next_run_follows(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await follow(tab, web)
    fakes.logs.hub.begin(web.id)
    fakes.logs.write(web.id, "last")
    fakes.logs.hub.end(web.id)
    await tab.next(f"log:{web.id}", "end")
    fakes.logs.write(web.id, "again")
    assert (await tab.lines(f"log:{web.id}", 1))[0][3] == "again"


async def test_marks_tell_boot_and_events(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await tab.say(op="sub", topic=f"marks:{web.id}")
    marks = (await tab.next(f"marks:{web.id}", "marks"))["marks"]
    assert ["vm", "kernel: 1.21 s"] in [mark[1:] for mark in marks]
    await fakes.containers.pause(web.id, initiator="admin")
    marks = (await tab.next(f"marks:{web.id}", "marks"))["marks"]
    assert [mark[1:] for mark in marks] == [["event", "Paused by admin"]]


async def test_rows_are_the_pages_own_and_only_changed_ones_come(tab: Tab, fakes: Fakes) -> None:
    web, job = await fakes.launch("web"), await fakes.launch("job")
    await tab.say(op="sub", topic="containers", query="sort=name")
    first = await tab.next("containers", "rows")
    assert first["order"] == [job.short_id, web.short_id]
    assert first["rows"][web.short_id].startswith(f'<tr id="c-{web.short_id}"')
    await fakes.containers.pause(job.id, initiator="admin")
    second = await tab.next("containers", "rows")
    assert list(second["rows"]) == [job.short_id]
    assert "Paused" in second["rows"][job.short_id]
    assert "order" not in second


async def test_rows_follow_the_filter(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await tab.say(op="sub", topic="containers", query="state=running")
    await tab.next("containers", "rows")
    fakes.containers.put(ended(web, exit_code=0, at_ns=now_ns()))
    assert (await tab.next("containers", "order"))["order"] == []


async def test_numbers_come_as_texts_while_somebody_watches(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.stats.samples[web.id] = [sample(5.0)]
    await tab.say(op="sub", topic="containers")
    await tab.next("containers", "rows")
    assert fakes.stats.watchers == 1
    fakes.stats.samples[web.id].append(sample(77.0))
    while True:
        message = await tab.next("containers", "text")
        if message["text"].get(f"cpu-{web.short_id}") == "77":
            break
    await tab.say(op="unsub", topic="containers")
    await tab.say(op="sub", topic="shell")
    await tab.next("shell", "text")
    assert fakes.stats.watchers == 0


async def test_header_follows_the_container_to_its_end(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    topic = f"container:{web.id}"
    await tab.say(op="sub", topic=topic)
    first = await tab.next(topic, "html")
    assert set(first["html"]) == {"ct-head", "ct-boot", "ct-memory"}
    fakes.containers.put(ended(web, exit_code=7, at_ns=now_ns()))
    second = await tab.next(topic, "html")
    assert "Exited 7" in second["html"]["ct-head"]
    await fakes.containers.remove(web.id, initiator="admin")
    assert "No such container" in (await tab.next(topic, "gone"))["gone"]


async def test_events_come_as_rows(tab: Tab, fakes: Fakes) -> None:
    await tab.say(op="sub", topic="events", after=0)
    await fakes.launch("web")
    first = await tab.next("events", "event")
    assert first["event"].startswith('<tr id="e-1"')
    assert first["id"] == 1


async def test_console_grows_and_starts_over(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    topic = f"console:{web.id}"
    fakes.logs.consoles[web.id] = b"[0.0] one\r\n"
    await tab.say(op="sub", topic=topic)
    assert (await tab.next(topic, "reset"))["reset"] == "[0.0] one\n"
    fakes.logs.consoles[web.id] += b"[0.1] two\r\n"
    assert (await tab.next(topic, "append"))["append"] == "[0.1] two\n"
    fakes.logs.consoles[web.id] = b"[0.0] anew\r\n"
    assert (await tab.next(topic, "reset"))["reset"] == "[0.0] anew\n"


async def test_two_topics_share_one_line(tab: Tab, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.logs.write(web.id, "hello")
    await tab.say(op="sub", topic="shell")
    await tab.say(op="sub", topic=f"log:{web.id}")
    assert (await tab.lines(f"log:{web.id}", 1))[0][3] == "hello"


async def test_unknown_topic_and_unknown_container_are_said(tab: Tab) -> None:
    await tab.say(op="sub", topic="secrets")
    assert "no such topic" in (await tab.next("secrets", "error"))["error"]
    topic = f"log:{'f' * 64}"
    await tab.say(op="sub", topic=topic)
    assert "No such container" in (await tab.next(topic, "gone"))["gone"]


async def test_topics_of_a_tab_are_bounded(tab: Tab, fakes: Fakes) -> None:
    ids = [(await fakes.launch(f"c{number}")).id for number in range(17)]
    for container_id in ids:
        await tab.say(op="sub", topic=f"console:{container_id}")
    assert "at most" in (await tab.next(f"console:{ids[-1]}", "error"))["error"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"op": "sub"}', '{"op": "x", "topic": "shell"}', "[" * 3000]
)
async def test_nonsense_ends_the_line(web: str, browser: httpx2.AsyncClient, text: str) -> None:
    async with socket_to(web, browser) as socket:
        await socket.send(text)
        assert await Tab(socket).close_code() == 1008


async def test_long_message_ends_the_line(web: str, browser: httpx2.AsyncClient) -> None:
    async with socket_to(web, browser) as socket:
        await socket.send("x" * 5000)
        assert await Tab(socket).close_code() == 1009


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_page_of_another_site_can_not_connect(
    web: str, browser: httpx2.AsyncClient, origin: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket_to(web, browser, origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_without_session_the_line_is_closed(web: str) -> None:
    async with httpx2.AsyncClient() as stranger, socket_to(web, stranger) as socket:
        assert await Tab(socket).close_code() == 4401


async def test_sign_out_closes_every_tab(
    web: str, browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    async with socket_to(web, browser) as one, socket_to(web, browser) as two:
        await Tab(one).say(op="sub", topic="shell")
        await Tab(one).next("shell", "text")
        csrf = next(iter(fakes.accounts.sessions.values())).csrf_token
        await browser.post("/sign-out", data={"csrf": csrf})
        assert await Tab(one).close_code() == 4401
        assert await Tab(two).close_code() == 4401


async def test_session_that_ended_elsewhere_closes_the_tab(
    web: str, browser: httpx2.AsyncClient, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.live.connection.SESSION_CHECK_S", 0.05)
    async with socket_to(web, browser) as socket:
        fakes.accounts.sessions.clear()
        assert await Tab(socket).close_code() == 4401


async def test_tab_that_goes_leaves_nothing_behind(
    web: str, browser: httpx2.AsyncClient, fakes: Fakes
) -> None:
    container = await fakes.launch("web")
    before = len(asyncio.all_tasks())
    async with socket_to(web, browser) as socket:
        tab = Tab(socket)
        for topic in ("containers", f"log:{container.id}", f"container:{container.id}", "overview"):
            await tab.say(op="sub", topic=topic)
        await tab.next("containers", "rows")
    async with asyncio.timeout(DEADLINE_S):
        while fakes.stats.watchers or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110
            await asyncio.sleep(0)
