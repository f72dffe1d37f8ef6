"""A real browser, and a dashboard served over the services in memory or over a real engine."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright
from starlette.types import Receive, Scope, Send

from app.core.units import MIB
from app.setup.assets import find_npm
from tests.e2e.dashboard import Dashboard
from tests.integration.serving import served
from tests.unit.web.conftest import web_app
from tests.unit.web.fake_services import ADMIN, Fakes

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "test-output" / "screenshots"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
NPM_TIMEOUT_S = 120


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, headless."""
    path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("There is no Chromium: install the package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def axe_source() -> str:
    """axe-core as pinned in package-lock.json."""
    if not AXE.exists():
        npm = find_npm()
        if npm is None:
            pytest.skip("axe-core needs npm to be fetched, and this machine has none")
        process = await asyncio.create_subprocess_exec(
            *npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund",
            cwd=ROOT, env=dict(os.environ),
        )  # fmt: skip
        async with asyncio.timeout(NPM_TIMEOUT_S):
            assert await process.wait() == 0
    return await asyncio.to_thread(AXE.read_text)


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    name: str
    width: int
    height: int
    scheme: str


LOOKS = (
    Look("light", 1280, 900, "light"),
    Look("dark", 1280, 900, "dark"),
    Look("phone", 320, 800, "dark"),
)


@pytest.fixture
def fakes() -> Fakes:
    """One image, and an administrator."""
    fakes = Fakes()
    fakes.images.add("busybox:latest", 4 * MIB, "sh")
    fakes.accounts.users[ADMIN[0]] = ADMIN[1]
    return fakes


@pytest.fixture
async def web(fakes: Fakes) -> AsyncIterator[str]:
    """URL of a dashboard over the fakes."""
    app = web_app(fakes)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": fakes.services}}, receive, send)

    async with served(with_state) as url:
        yield url
        await app.state.web.close()


async def new_dashboard(
    chromium: Browser, url: str, look: Look = LOOKS[0]
) -> tuple[Dashboard, BrowserContext]:
    """A fresh browser profile; every fault of the page's own scripts fails the test."""
    context = await chromium.new_context(
        viewport={"width": look.width, "height": look.height},
        color_scheme="dark" if look.scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    return Dashboard(await context.new_page(), url), context


@pytest.fixture
async def dashboard(chromium: Browser, web: str) -> AsyncIterator[Dashboard]:
    """Signed in at the fakes' dashboard."""
    dashboard, context = await new_dashboard(chromium, web)
    await dashboard.sign_in(*ADMIN)
    yield dashboard
    await context.close()
    dashboard.require_no_faults()
