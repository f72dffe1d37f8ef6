"""What the pages do with a keyboard and a mouse, over the services in memory."""

import io
import re
import tarfile
from dataclasses import replace

import pytest
from playwright.async_api import Browser, expect
from starlette.types import Receive, Scope, Send

from app.domain.container import ended
from tests.e2e.conftest import LOOKS, new_dashboard
from tests.e2e.dashboard import Dashboard
from tests.integration.serving import served
from tests.unit.web.conftest import web_app
from tests.unit.web.fake_services import ADMIN, Fakes
from tests.unit.web.fake_stores import now_ns, sample

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


async def test_row_follows_the_container_and_keeps_tick_and_focus(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await dashboard.open("/containers")
    await dashboard.wait_until_live()
    tick = dashboard.page.get_by_label("Select web")
    await tick.check()
    await tick.focus()
    await fakes.containers.pause(web.id, initiator="admin")
    await expect(await dashboard.row("web")).to_contain_text("Paused")
    await expect(tick).to_be_checked()
    await expect(tick).to_be_focused()


async def test_numbers_move_without_a_reload(dashboard: Dashboard, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    fakes.stats.samples[web.id] = [sample(11.0), sample(11.0)]
    await dashboard.open("/containers")
    cpu = dashboard.page.locator(f"[data-live=cpu-{web.short_id}]")
    await expect(cpu).to_have_text("11")
    fakes.stats.samples[web.id].append(sample(64.0))
    await expect(cpu).to_have_text("64")


async def test_rows_come_and_go_live(dashboard: Dashboard, fakes: Fakes) -> None:
    await fakes.launch("web")
    await dashboard.open("/containers?sort=name")
    await dashboard.wait_until_live()
    await fakes.launch("api")
    names = dashboard.page.locator("[data-rows] a.name")
    await expect(names).to_have_text(["api", "web"])
    await expect(dashboard.page.locator("[data-live=count-containers]")).to_have_text("2")
    await fakes.containers.remove("web", force=True, initiator="admin")
    await expect(names).to_have_text(["api"])


async def test_filter_as_one_types_is_in_the_url_and_live(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    for name in ("web", "webhook", "mail"):
        await fakes.launch(name)
    await dashboard.open("/containers")
    await dashboard.page.locator("#filter").press_sequentially("web")
    await expect(dashboard.page.locator("[data-rows] tr")).to_have_count(2)
    await expect(dashboard.page).to_have_url(re.compile(r"\?q=web$"))
    await fakes.launch("web3")
    await fakes.launch("mail3")
    await expect(dashboard.page.locator("[data-rows] tr")).to_have_count(3)


async def test_many_are_stopped_and_removed(dashboard: Dashboard, fakes: Fakes) -> None:
    for name in ("a1", "b2", "c3"):
        await fakes.launch(name)
    await dashboard.open("/containers")
    page = dashboard.page
    bar = page.locator("[data-bulk]")
    await expect(bar).to_be_hidden()
    await page.get_by_label("Select all containers shown").check()
    await expect(bar).to_contain_text("3 selected")
    await page.get_by_label("Select c3").uncheck()
    await bar.get_by_role("button", name="Stop").click()
    await expect(page.locator(".toast")).to_contain_text("Stopped 2 containers.")
    await expect(bar).to_be_hidden()
    await page.get_by_label("Select all containers shown").check()
    await bar.get_by_role("button", name="Remove…").click()
    dialog = page.locator("#dialog")
    await expect(dialog).to_contain_text("Remove 3 containers?")
    confirm = dialog.get_by_role("button", name="Remove 3 containers")
    await expect(confirm).to_be_disabled()
    await dialog.get_by_label("to confirm").fill("3")
    await confirm.click()
    await expect(page.locator(".toast").last).to_contain_text("Removed 3 containers.")
    await expect(dialog).to_be_hidden()
    assert fakes.containers.all == {}


async def test_dialog_closes_on_escape_and_gives_focus_back(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    web = await fakes.launch("web")
    await dashboard.open(f"/containers/{web.short_id}")
    await dashboard.wait_until_live()
    link = dashboard.page.locator("#ct-head").get_by_role("link", name="Remove…")
    await link.focus()
    await dashboard.page.keyboard.press("Enter")
    await expect(dashboard.page.get_by_label("to confirm")).to_be_focused()
    await dashboard.page.keyboard.press("Escape")
    await expect(dashboard.page.locator("#dialog")).to_be_hidden()
    await expect(link).to_be_focused()


async def test_everything_on_the_list_is_reached_by_keyboard(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    await fakes.launch("web")
    await dashboard.open("/containers")
    reached = set()
    for _ in range(60):
        await dashboard.page.keyboard.press("Tab")
        reached.add(
            await dashboard.page.evaluate(
                "document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.textContent.trim()"
            )
        )
    assert {"Skip to content", "Launch", "Select web", "web", "Stop web", "Log of web"} <= reached


async def test_actions_of_the_header_work_by_keyboard(dashboard: Dashboard, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await dashboard.open(f"/containers/{web.short_id}")
    await dashboard.wait_until_live()
    await dashboard.page.get_by_role("button", name="Pause").focus()
    await dashboard.page.keyboard.press("Enter")
    await expect(dashboard.state).to_have_text("Paused")
    await expect(dashboard.page.locator("#announce")).to_have_text("The container is paused")
    await dashboard.click_action("Resume")
    await expect(dashboard.state).to_have_text("Running")


async def test_menu_stays_open_while_the_header_changes(dashboard: Dashboard, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await dashboard.open(f"/containers/{web.short_id}")
    await dashboard.wait_until_live()
    await dashboard.page.get_by_label("More actions").click()
    name = dashboard.page.get_by_label("New name")
    await name.fill("front")
    fakes.containers.put(replace(fakes.containers.all[web.id], unresponsive_since_ns=now_ns()))
    await expect(dashboard.page.locator("#ct-memory")).to_be_visible()
    await expect(name).to_have_value("front")
    await dashboard.page.get_by_role("button", name="Rename").click()
    await expect(dashboard.page.locator("h1")).to_have_text("front")


async def test_state_arrives_without_a_reload(dashboard: Dashboard, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await dashboard.open(f"/containers/{web.short_id}")
    await dashboard.wait_until_live()
    fakes.containers.put(ended(web, exit_code=42, at_ns=now_ns(), error="the guest panicked"))
    await expect(dashboard.state).to_have_text("Exited 42")
    await expect(dashboard.page.locator("#ct-head")).to_contain_text("the guest panicked")


async def test_overview_shows_a_failure_without_a_reload(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    job = await fakes.launch("job")
    await dashboard.open("/")
    await dashboard.wait_until_live()
    fakes.containers.put(ended(job, exit_code=9, at_ns=now_ns()))
    await expect(dashboard.page.locator("#overview")).to_contain_text("ended with exit code 9")
    await expect(dashboard.page.locator("[data-live=count-failed]")).to_have_text("1")


async def test_engine_that_does_not_answer_is_said(dashboard: Dashboard, fakes: Fakes) -> None:
    web = await fakes.launch("web")
    await dashboard.open(f"/containers/{web.short_id}")
    await dashboard.wait_until_live()
    await dashboard.page.route("**/pause", lambda route: route.abort())
    await dashboard.click_action("Pause")
    await expect(dashboard.page.locator(".toast")).to_contain_text("The engine gave no answer.")
    dashboard.faults.clear()  # the browser reports the aborted request itself


async def test_fault_takes_the_focus_and_leads_to_its_field(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    await dashboard.open("/launch")
    await dashboard.page.locator("#memory").fill("lots")
    await dashboard.page.locator("#launch button.go").click()
    faults = dashboard.page.locator("#faults")
    await expect(faults).to_be_focused()
    await faults.get_by_role("link").click()
    await expect(dashboard.page.locator("#memory")).to_be_focused()
    await expect(dashboard.page.locator("#memory")).to_have_value("lots")
    assert fakes.containers.all == {}


async def test_preview_follows_what_is_typed(dashboard: Dashboard) -> None:
    await dashboard.open("/launch")
    await dashboard.page.locator("#memory").press_sequentially("300m")
    preview = dashboard.page.locator("#preview")
    await expect(preview).to_contain_text("300 MiB")
    await expect(preview).to_contain_text('"memory_bytes": 314572800')
    await expect(dashboard.page.locator("#memory")).to_be_focused()


async def test_lost_connection_is_shown_and_what_was_missed_comes(
    chromium: Browser, fakes: Fakes
) -> None:
    app = web_app(fakes)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"services": fakes.services}}, receive, send)

    async with served(with_state) as url:
        dashboard, context = await new_dashboard(chromium, url)
        await dashboard.sign_in(*ADMIN)
        container = await fakes.launch("web")
        fakes.logs.write(container.id, "before")
        await dashboard.open(f"/containers/{container.short_id}")
        await expect(dashboard.lines.last).to_have_text("before")
        # Every further connection fails until it is let through again.
        await dashboard.page.evaluate(
            "() => { window.RealSocket = WebSocket; window.WebSocket = class extends WebSocket {"
            " constructor(url) { super(url.replace('/ws', '/nope')); } }; }"
        )
        await app.state.web.close()
        line = dashboard.page.locator("[data-link]")
        await expect(line).to_contain_text("Offline")
        fakes.logs.write(container.id, "meanwhile")
        fakes.containers.put(ended(container, exit_code=5, at_ns=now_ns()))
        await dashboard.page.evaluate("() => { window.WebSocket = window.RealSocket; }")
        await expect(dashboard.lines.last).to_have_text("meanwhile", timeout=20_000)
        await expect(dashboard.state).to_have_text("Exited 5")
        await expect(dashboard.lines).to_have_text(["before", "meanwhile"])
        await context.close()
        await app.state.web.close()


async def test_sign_out_elsewhere_leads_to_the_sign_in(dashboard: Dashboard, fakes: Fakes) -> None:
    await dashboard.open("/containers")
    await dashboard.wait_until_live()
    other = await dashboard.page.context.new_page()
    await other.goto(dashboard.url)
    await other.get_by_label(re.compile("Account")).click()
    await other.get_by_role("button", name="Sign out").click()
    await expect(other.get_by_text("You are signed out.")).to_be_visible()
    await expect(dashboard.page).to_have_url(re.compile("/sign-in"))


async def test_theme_is_kept(dashboard: Dashboard) -> None:
    toggle = dashboard.page.get_by_label(re.compile("^Theme"))
    await toggle.click()
    root = dashboard.page.locator("html")
    await expect(root).to_have_attribute("data-theme", "dark")
    await dashboard.page.wait_for_timeout(200)
    await dashboard.open("/host")
    await expect(root).to_have_attribute("data-theme", "dark")


async def test_upload_shows_its_end(dashboard: Dashboard, fakes: Fakes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("bin/app")
        info.size = 3_000_000
        archive.addfile(info, io.BytesIO(b"\0" * info.size))
    page = dashboard.page
    await dashboard.open("/images")
    await dashboard.wait_until_live()
    await page.get_by_text("Import an image").click()
    await page.get_by_label("Name and tag").fill("mine/app:1")
    files = {"name": "app.tar", "mimeType": "application/x-tar", "buffer": buffer.getvalue()}
    await page.locator("#file").set_input_files(files)  # type: ignore[arg-type]
    await page.get_by_role("button", name="Import").click()
    await expect(page.locator("[data-upload-text]")).to_have_text("Imported mine/app:1.")
    await expect(page.locator("#images")).to_contain_text("mine/app:1")
    assert fakes.images.imported_bytes == len(buffer.getvalue())


async def test_upload_that_fails_says_why(dashboard: Dashboard) -> None:
    page = dashboard.page
    await dashboard.open("/images")
    await page.get_by_text("Import an image").click()
    files = {"name": "x.tar", "mimeType": "application/x-tar", "buffer": b"no tar" * 200}
    await page.locator("#file").set_input_files(files)  # type: ignore[arg-type]
    await page.get_by_role("button", name="Import").click()
    await expect(page.locator("[data-upload-text]")).to_contain_text("not a tar archive")


async def test_without_scripts_a_container_is_launched_stopped_and_removed(
    chromium: Browser, web: str, fakes: Fakes
) -> None:
    context = await chromium.new_context(java_script_enabled=False)
    dashboard = Dashboard(await context.new_page(), web)
    page = dashboard.page
    await dashboard.sign_in(*ADMIN)
    await dashboard.launch(image="busybox:latest", name="plain", command="echo hi")
    await expect(dashboard.state).to_have_text("Running")
    await dashboard.click_action("Stop")
    await expect(dashboard.state).to_have_text("Exited 143")
    await expect(page.locator(".note.ok")).to_contain_text("Stopped plain.")
    await page.locator("#ct-head").get_by_role("link", name="Remove…").click()
    await page.get_by_role("button", name="Remove 1 container").click()
    await expect(page.locator(".note.ok")).to_contain_text("Removed plain.")
    await context.close()


async def test_thousand_rows_are_listed_in_pages_and_stay_live(
    chromium: Browser, web: str, fakes: Fakes
) -> None:
    for number in range(1000):
        container = await fakes.launch(f"c{number:04}")
        fakes.stats.samples[container.id] = [sample(float(number % 100))] * 60
    dashboard, context = await new_dashboard(chromium, web, LOOKS[0])
    await dashboard.sign_in(*ADMIN)
    await dashboard.open("/containers?sort=name")
    await dashboard.wait_until_live()
    await expect(dashboard.page.locator("[data-rows] tr")).to_have_count(200)
    first = next(one for one in fakes.containers.all.values() if one.name == "c0000")
    await fakes.containers.pause(first.id, initiator="admin")
    await expect(await dashboard.row("c0000")).to_contain_text("Paused")
    await context.close()
    dashboard.require_no_faults()
