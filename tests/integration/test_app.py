"""The whole application over the fake machine: what is at its root, and who may ask for it."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.main import create_app
from app.services.bundle import Services
from tests.integration.engine_lab import DEADLINE_S, EngineLab, launch, shell
from tests.integration.serving import served


@pytest.fixture
async def browser(lab: EngineLab) -> AsyncIterator[tuple[httpx2.AsyncClient, Services]]:
    """A client without any credentials, and the services behind the application."""
    seen: list[Services] = []

    async def remember(services: Services) -> None:
        seen.append(services)

    app = create_app(lab.settings, lab.runner(), on_ready=remember)
    async with (
        served(app, lifespan="on") as url,
        httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client,
    ):
        yield client, seen[0]


async def test_health_needs_no_token(browser: tuple[httpx2.AsyncClient, Services]) -> None:
    client, _ = browser
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_metrics_need_a_token_and_tell_of_containers(
    browser: tuple[httpx2.AsyncClient, Services],
) -> None:
    client, services = browser
    assert (await client.get("/metrics")).status_code == 401
    await launch(services, shell("while true; do sleep 1; done"), "web")
    await services.stats.next_round()
    token = (await services.accounts.create_token("prometheus")).secret
    answer = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'slipway_containers{state="running"} 1.0' in lines
    assert any(line.startswith("slipway_container_memory_bytes{") for line in lines)
    assert any('name="web"' in line for line in lines)


async def test_rest_errors_are_problems_and_pages_are_pages(
    browser: tuple[httpx2.AsyncClient, Services],
) -> None:
    client, _ = browser
    missing = await client.get("/api/v1/no-such-thing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert (await client.post("/api/v1/hosts")).status_code == 405
    page = await client.get("/no-such-page")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")


async def test_session_cookie_does_not_open_rest(
    browser: tuple[httpx2.AsyncClient, Services],
) -> None:
    client, services = browser
    link = await services.accounts.issue_setup_link()
    session = await services.accounts.create_first_admin(link, "admin", "correct horse battery")
    for name in ("slipway", f"slipway-{client.base_url.port}"):
        client.cookies.set(name, session.token)
    assert (await client.get("/api/v1/containers")).status_code == 401


async def test_document_is_served(browser: tuple[httpx2.AsyncClient, Services]) -> None:
    client, _ = browser
    document = (await client.get("/api/v1/openapi.json")).json()
    assert document["servers"] == [{"url": "/api/v1"}]
    assert "/containers/{reference}/logs" in document["paths"]
