"""axe-core on every page, light, dark and at 320 px; and no page scrolls sideways."""

from dataclasses import replace

import pytest
from playwright.async_api import Browser, expect

from app.domain.container import Container, ended, paused
from app.domain.log import LogStream
from tests.e2e.conftest import LOOKS, SHOTS, Look, new_dashboard
from tests.unit.web.fake_services import ADMIN, Fakes
from tests.unit.web.fake_stores import now_ns, sample

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

PAGES = {
    "overview": "/",
    "containers": "/containers",
    "launch": "/launch?image=busybox:latest&name=web2&memory=256m",
    "images": "/images",
    "vms": "/vms",
    "host": "/host",
    "events": "/events",
    "log": "/containers/{id}",
    "console": "/containers/{id}/console",
    "inspect": "/containers/{id}/inspect",
    "remove": "/containers/{id}/remove",
    "missing": "/nope",
}


async def populate(fakes: Fakes) -> Container:
    """Containers in every state, and a log with both streams."""
    web = await fakes.launch("web", memory_bytes=512 * 2**20)
    fakes.stats.samples[web.id] = [sample(cpu, 300) for cpu in (12.0, 40.0, 31.0)]
    fakes.logs.write(web.id, "listening on :443", *(f"GET /{n} 200" for n in range(40)))
    fakes.logs.write(
        web.id, "\x1b[31merror\x1b[0m: \x1b[1mpool\x1b[0m is empty", stream=LogStream.STDERR
    )
    fakes.logs.consoles[web.id] = b"[    0.000000] Linux version 6.1.0-26-amd64\r\n" * 40
    for name in ("mailer", "thumbs", "nightly", "batch", "runner"):
        await fakes.launch(name)
    one = {container.name: container for container in fakes.containers.all.values()}
    fakes.containers.put(ended(one["mailer"], exit_code=1, at_ns=now_ns()))
    fakes.containers.put(ended(one["thumbs"], exit_code=137, at_ns=now_ns(), oom_killed=True))
    fakes.containers.put(ended(one["nightly"], exit_code=0, at_ns=now_ns()))
    fakes.containers.put(paused(one["batch"]))
    fakes.containers.put(replace(one["runner"], unresponsive_since_ns=now_ns()))
    await fakes.containers.create(
        replace(web.config, image="busybox:latest"), name="new", initiator="admin"
    )
    return web


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
async def test_pages_have_no_violation(
    chromium: Browser, web: str, fakes: Fakes, axe_source: str, look: Look
) -> None:
    container = await populate(fakes)
    dashboard, context = await new_dashboard(chromium, web, look)
    await dashboard.open("/sign-in")
    found = {"sign-in": await dashboard.violations(axe_source)}
    await dashboard.sign_in(*ADMIN)
    for name, path in PAGES.items():
        await dashboard.open(path.format(id=container.short_id))
        if name != "missing" and look.name != "phone":
            await dashboard.wait_until_live()
        if name == "log":
            await expect(dashboard.lines.last).to_be_visible()
        if name == "containers":
            await dashboard.page.get_by_label("Select mailer").check()
        await dashboard.shoot(SHOTS, f"{name}-{look.name}")
        found[name] = await dashboard.violations(axe_source)
        assert not await dashboard.is_wider_than_the_window(), name
    await context.close()
    assert {name: faults for name, faults in found.items() if faults} == {}
    dashboard.require_no_faults()


@pytest.mark.parametrize("path", ["/", "/containers", "/images", "/vms", "/events"])
async def test_empty_pages_have_no_violation(
    chromium: Browser, web: str, fakes: Fakes, axe_source: str, path: str
) -> None:
    fakes.images.all.clear()
    dashboard, context = await new_dashboard(chromium, web, LOOKS[2])
    await dashboard.sign_in(*ADMIN)
    await dashboard.open(path)
    assert await dashboard.violations(axe_source) == []
    assert not await dashboard.is_wider_than_the_window()
    await context.close()


async def test_first_start_and_faulty_forms_have_no_violation(
    chromium: Browser, web: str, fakes: Fakes, axe_source: str
) -> None:
    fakes.accounts.users.clear()
    dashboard, context = await new_dashboard(chromium, web, LOOKS[2])
    await dashboard.open("/setup?token=setup-token")
    assert await dashboard.violations(axe_source) == []
    await dashboard.set_up(f"{web}/setup?token=setup-token", "admin", "correct horse battery")
    await dashboard.open("/launch?image=nope&memory=1q&env=x")
    await dashboard.page.locator("#launch button.go").click()
    await expect(dashboard.page.locator("#faults")).to_be_focused()
    assert await dashboard.violations(axe_source) == []
    await context.close()
