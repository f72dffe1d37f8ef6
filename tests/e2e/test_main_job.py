"""The main job, from end to end: first-start link, launch, live log, stop, exit code, remove."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.conftest import LOOKS, SHOTS, new_dashboard
from tests.integration.engine_process import EngineProcess, build_shared_guest

pytestmark = [pytest.mark.e2e, pytest.mark.qemu, pytest.mark.timeout(300)]
LOOP = "sh -c 'i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done'"
BOOT_TIMEOUT_MS = 60_000
ADMIN = ("admin", "correct horse battery")


@pytest.fixture(scope="session")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped guest."""
    return await build_shared_guest(tmp_path_factory.mktemp("guest"))


@pytest.fixture
async def engine(tmp_path: Path, guest: Path) -> AsyncIterator[EngineProcess]:
    """An engine on a fresh data directory, not yet set up."""
    async with EngineProcess(tmp_path, guest) as engine:
        await engine.start()
        yield engine


async def test_click_to_a_live_log(chromium: Browser, engine: EngineProcess) -> None:
    dashboard, context = await new_dashboard(chromium, engine.url)
    await dashboard.set_up(engine.setup_url, *ADMIN)
    await dashboard.shoot(SHOTS, "main-1-overview")
    await dashboard.launch(image="busybox:latest", name="ticker", command=LOOP, memory="64m")
    await expect(dashboard.lines.first).to_have_text("line 1", timeout=BOOT_TIMEOUT_MS)
    await expect(dashboard.state).to_have_text("Running", timeout=BOOT_TIMEOUT_MS)
    await expect(dashboard.lines.filter(has_text=re.compile(r"^line 8$"))).to_be_visible()
    await expect(dashboard.page.locator("#ct-boot")).to_contain_text("kernel")
    await expect(dashboard.page.locator("#ct-memory")).to_contain_text(
        "Host-resident", timeout=30_000
    )
    for look in LOOKS:
        await dashboard.page.emulate_media(
            color_scheme="dark" if look.scheme == "dark" else "light"
        )
        await dashboard.page.set_viewport_size({"width": look.width, "height": look.height})
        assert not await dashboard.is_wider_than_the_window()
        await dashboard.shoot(SHOTS, f"main-2-live-log-{look.name}")
    await dashboard.page.set_viewport_size({"width": 1280, "height": 900})
    await dashboard.click_action("Stop")
    # `sh` as PID 1 has no handler for SIGTERM, so the grace runs out and SIGKILL ends it.
    await expect(dashboard.state).to_have_text("Exited 137", timeout=BOOT_TIMEOUT_MS)
    await expect(dashboard.page.locator("#ct-head")).to_contain_text("VM off")
    await expect(dashboard.page.locator(".toast")).to_contain_text("Stopped ticker.")
    await dashboard.shoot(SHOTS, "main-3-stopped")
    await dashboard.open(dashboard.page.url.removeprefix(dashboard.url) + "/console")
    await expect(dashboard.page.locator("[data-console]")).not_to_be_empty()
    await dashboard.shoot(SHOTS, "main-4-console")
    await dashboard.remove_container("ticker")
    await expect(dashboard.page.locator(".note.ok")).to_contain_text("Removed ticker.")
    await expect(dashboard.page.get_by_text("Nothing launched yet")).to_be_visible()
    await context.close()
    dashboard.require_no_faults()


async def test_tab_lives_through_a_restart_of_the_engine(
    chromium: Browser, engine: EngineProcess
) -> None:
    dashboard, context = await new_dashboard(chromium, engine.url)
    await dashboard.set_up(engine.setup_url, *ADMIN)
    await dashboard.launch(image="busybox:latest", name="ticker", command=LOOP)
    await expect(dashboard.lines.first).to_have_text("line 1", timeout=BOOT_TIMEOUT_MS)
    await engine.kill()
    await expect(dashboard.page.locator("[data-link]")).to_contain_text("Offline")
    await engine.start()
    await dashboard.wait_until_live()
    seen = await dashboard.seen_numbers()
    later = re.compile(rf"^line {max(seen) + 10}$")
    await expect(dashboard.lines.filter(has_text=later)).to_be_visible(timeout=BOOT_TIMEOUT_MS)
    lines: list[list[object]] = await dashboard.page.evaluate(
        "[...document.querySelectorAll('[data-lines] > li:not([hidden])')]"
        ".filter((row) => row.item.seq).map((row) => [row.item.seq, row.item.text])"
    )
    first = lines[0][0]
    assert isinstance(first, int)
    assert lines == [[first + index, f"line {first + index}"] for index in range(len(lines))]
    await context.close()
    dashboard.require_no_faults()
