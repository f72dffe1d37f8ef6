"""The dashboard over the whole engine: real services, database and image store, scripted guests."""

import asyncio
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S
from tests.integration.serving import served
from tests.unit.web.conftest import web_over

PASSWORD = "correct horse battery"


@pytest.fixture
async def browser(services: Services) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser at a first start, not yet set up."""
    app = web_over(services)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": services}}, receive, send)

    async with served(with_state) as url:
        async with httpx2.AsyncClient(
            base_url=url, headers={"Origin": url}, timeout=DEADLINE_S
        ) as client:
            yield client
        await app.state.web.close()


async def set_up(browser: httpx2.AsyncClient, services: Services) -> str:
    """Create the admin by the link; gives the session's CSRF token."""
    token = await services.accounts.issue_setup_link()
    answer = await browser.post(
        "/setup", data={"token": token, "name": "admin", "password": PASSWORD}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    found = re.search(r'data-csrf="([^"]+)"', (await browser.get("/")).text)
    assert found is not None
    return found[1]


async def test_every_page_over_the_real_services(
    browser: httpx2.AsyncClient, services: Services
) -> None:
    await set_up(browser, services)
    for path in ("/", "/containers", "/launch", "/images", "/vms", "/host", "/events"):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
    assert "busybox:latest" in (await browser.get("/images")).text


async def test_launch_to_live_line_to_removal(
    browser: httpx2.AsyncClient, services: Services
) -> None:
    csrf = await set_up(browser, services)
    answer = await browser.post(
        "/launch",
        data={"csrf": csrf, "image": "busybox", "name": "ticker", "command": "loop 0.01"},
    )
    assert answer.status_code == 303
    path = answer.headers["location"]
    container = await services.containers.get("ticker")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    url = str(browser.base_url).rstrip("/")
    async with connect(
        url.replace("http", "ws") + "/ws",
        additional_headers={"Cookie": cookie, "Origin": url},
        proxy=None,
    ) as socket:
        await socket.send(json.dumps({"op": "sub", "topic": f"log:{container.id}"}))
        lines: list[list[object]] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(lines) < 5:
                lines += json.loads(await socket.recv()).get("lines", [])
    assert [line[3] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    text = (await browser.get(path)).text
    assert "Running" in text
    await browser.post(f"{path}/kill", data={"csrf": csrf})
    text = (await browser.get(path)).text
    assert "Exited 137" in text
    assert "ticker" in (await browser.get("/events")).text
    await browser.post("/containers/remove", data={"csrf": csrf, "id": container.id})
    assert "Removed ticker." in (await browser.get("/containers")).text


async def test_import_by_form_and_removal(browser: httpx2.AsyncClient, services: Services) -> None:
    csrf = await set_up(browser, services)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("bin/app")
        info.size = 200_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    answer = await browser.post(
        "/images/import",
        data={"csrf": csrf, "reference": "mine/app:1"},
        files={"file": ("root.tar", buffer.getvalue())},
    )
    assert answer.status_code == 303
    assert "Imported mine/app:1." in (await browser.get("/images")).text
    image = await services.images.get("mine/app:1")
    await browser.post(f"/images/{image.id}/remove", data={"csrf": csrf})
    assert "mine/app:1</span>" not in (await browser.get("/images")).text


async def test_damaged_upload_is_said_and_leaves_nothing(
    browser: httpx2.AsyncClient, services: Services
) -> None:
    csrf = await set_up(browser, services)
    before = len(await services.images.list())
    answer = await browser.put(
        "/images/import?reference=x:1",
        content=b"not a tar " * 1000,
        headers={"X-CSRF-Token": csrf},
    )
    assert answer.status_code == 422
    assert answer.json()["message"]
    assert len(await services.images.list()) == before


async def test_wrong_image_is_said_at_its_field(
    browser: httpx2.AsyncClient, services: Services
) -> None:
    csrf = await set_up(browser, services)
    for image in ("nope:1", "UPPER:1", "busybox:"):
        answer = await browser.post("/launch", data={"csrf": csrf, "image": image})
        assert answer.status_code == 422, image
        assert 'id="image-e"' in answer.text, image
    assert await services.containers.list() == []


async def test_taken_name_is_said_at_its_field(
    browser: httpx2.AsyncClient, services: Services
) -> None:
    csrf = await set_up(browser, services)
    data = {"csrf": csrf, "image": "busybox", "name": "twin", "command": "loop 1"}
    assert (await browser.post("/launch", data=data)).status_code == 303
    answer = await browser.post("/launch", data=data)
    assert answer.status_code == 422
    assert 'id="name-e"' in answer.text
