"""A dashboard over the fakes, and a client that is signed in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.core.units import MIB
from app.services.bundle import Services
from app.settings import Settings
from app.web.router import install, router
from tests.unit.web.fake_services import ADMIN, Fakes

BASE_URL = "http://127.0.0.1:8080"


def web_over(services: Services) -> FastAPI:
    """The dashboard alone."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        yield {"services": services}
        await app.state.web.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    install(app, Settings())
    return app


def web_app(fakes: Fakes) -> FastAPI:
    """The dashboard over the fakes."""
    return web_over(fakes.services)


@pytest.fixture
def fakes() -> Fakes:
    """One image, and an administrator."""
    fakes = Fakes()
    fakes.images.add("busybox:latest", 4 * MIB, "sh")
    fakes.accounts.users[ADMIN[0]] = ADMIN[1]
    return fakes


@pytest.fixture
async def anonymous(fakes: Fakes) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser without a session."""
    app = web_app(fakes)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": fakes.services}}, receive, send)

    transport = httpx2.ASGITransport(app=with_state)
    async with httpx2.AsyncClient(
        transport=transport, base_url=BASE_URL, headers={"Origin": BASE_URL}
    ) as client:
        yield client


@pytest.fixture
async def browser(anonymous: httpx2.AsyncClient, fakes: Fakes) -> httpx2.AsyncClient:
    """A browser that is signed in."""
    answer = await anonymous.post("/sign-in", data={"name": ADMIN[0], "password": ADMIN[1]})
    assert answer.status_code == 303
    return anonymous


@pytest.fixture
def csrf(browser: httpx2.AsyncClient, fakes: Fakes) -> str:
    """The session's token for forms."""
    return next(iter(fakes.accounts.sessions.values())).csrf_token
