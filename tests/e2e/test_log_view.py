"""The log's view in a browser, over the services in memory."""

import asyncio

import pytest
from playwright.async_api import expect

from app.domain.container import ended
from app.domain.log import LogStream
from tests.e2e.dashboard import Dashboard
from tests.unit.web.fake_services import Fakes
from tests.unit.web.fake_stores import now_ns

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]
MOST_ROWS = 90


async def open_log(dashboard: Dashboard, fakes: Fakes, lines: int = 0) -> str:
    container = await fakes.launch("web")
    fakes.logs.write(container.id, *(f"line {number}" for number in range(1, lines + 1)))
    await dashboard.open(f"/containers/{container.short_id}")
    await dashboard.wait_until_live()
    if lines:
        await expect(dashboard.lines.filter(has_text=f"line {lines}")).to_have_count(1)
    return container.id


async def scroll_to(dashboard: Dashboard, top: int) -> None:
    view = dashboard.page.locator("[data-view]")
    await view.hover()
    await view.evaluate("(view, top) => { view.scrollTop = top; }", top)


async def test_lines_appear_live_and_are_text(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes)
    fakes.logs.write(container_id, "<script>alert(1)</script><b>not bold</b>")
    line = dashboard.lines.filter(has_text="alert(1)")
    await expect(line).to_have_text("<script>alert(1)</script><b>not bold</b>")
    assert await line.locator("b, script").count() == 0


async def test_colours_become_classes_and_other_sequences_vanish(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    container_id = await open_log(dashboard, fakes)
    fakes.logs.write(
        container_id,
        "\x1b[31;1mred\x1b[0m \x1b]0;title\x07plain\x1b[2K\x1b[38;5;196mx\x1b[m\x08\ttab",
    )
    line = dashboard.lines.first
    await expect(line).to_have_text("red plainx      tab")
    await expect(line.locator(".a-1.a-b")).to_have_text("red")


async def test_standard_error_is_marked_by_word_not_only_colour(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    container_id = await open_log(dashboard, fakes)
    fakes.logs.write(container_id, "oops", stream=LogStream.STDERR)
    row = dashboard.page.locator("[data-lines] li.er")
    await expect(row).to_contain_text("err")
    await expect(row).to_contain_text("standard error")


async def test_hundred_thousand_lines_take_few_rows(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes)
    for start in range(1, 100_001, 5000):
        fakes.logs.write(container_id, *(f"line {start + one}" for one in range(5000)))
    await expect(dashboard.page.locator("[data-stored]")).to_have_text("100,000 lines stored")
    await expect(dashboard.lines.last).to_have_text("line 100000")
    assert await dashboard.page.locator("[data-lines] > li").count() < MOST_ROWS
    numbers = await dashboard.seen_numbers()
    assert numbers == list(range(numbers[0], 100_001))


async def test_ring_forgets_the_oldest(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes)
    for start in range(0, 130_000, 5000):
        fakes.logs.write(container_id, *(f"line {start + one}" for one in range(1, 5001)))
        await dashboard.page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    await expect(dashboard.lines.last).to_have_text("line 130000")
    count = await dashboard.page.locator("[data-lane-count=stdout]").inner_text()
    assert int(count.replace(",", "")) <= 105_000


async def test_scrolling_up_pauses_and_new_lines_are_counted(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    container_id = await open_log(dashboard, fakes, 500)
    await scroll_to(dashboard, 4000)
    follow = dashboard.page.get_by_role("button", name="Follow")
    await expect(follow).to_have_attribute("aria-pressed", "false")
    before = await dashboard.seen_numbers()
    fakes.logs.write(container_id, *(f"late {number}" for number in range(30)))
    pill = dashboard.page.locator("[data-pill]")
    await expect(pill).to_have_text("30 new lines")
    assert (await dashboard.seen_numbers())[:10] == before[:10]
    await pill.click()
    await expect(dashboard.lines.last).to_have_text("late 29")
    await expect(follow).to_have_attribute("aria-pressed", "true")


async def test_older_lines_are_read_on_scrolling_up(dashboard: Dashboard, fakes: Fakes) -> None:
    await open_log(dashboard, fakes, 3500)
    seen = await dashboard.seen_numbers()
    assert min(seen) > 2500
    async with asyncio.timeout(20):
        while 1 not in (numbers := await dashboard.seen_numbers()):
            await scroll_to(dashboard, 0)
            await dashboard.page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    assert numbers == list(range(1, len(numbers) + 1))


async def test_find_marks_counts_and_steps(dashboard: Dashboard, fakes: Fakes) -> None:
    await open_log(dashboard, fakes, 300)
    await dashboard.page.locator("[data-find]").fill("line 1\\d$")
    await expect(dashboard.page.locator("[data-find-count]")).to_have_text("10 lines")
    await dashboard.page.keyboard.press("Enter")
    await expect(dashboard.page.locator("[data-find-count]")).to_have_text("1 of 10")
    await expect(dashboard.page.locator("[data-lines] li.at .m")).to_have_text("line 10")
    await dashboard.page.keyboard.press("Shift+Enter")
    await dashboard.page.keyboard.press("Enter")
    await expect(dashboard.page.locator("[data-lines] mark").first).to_be_visible()


async def test_filter_hides_the_rest_and_says_so(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes, 300)
    await dashboard.page.locator("[data-find]").fill("line 29")
    await dashboard.page.get_by_role("button", name="Filter").last.click()
    await expect(dashboard.lines).to_have_text(["line 29", *(f"line {n}" for n in range(290, 300))])
    fakes.logs.write(container_id, "other", "line 2999")
    await expect(dashboard.lines.last).to_have_text("line 2999")
    await dashboard.page.locator("[data-find]").fill("nowhere")
    await expect(dashboard.page.locator("[data-empty]")).to_contain_text("hides all")


async def test_broken_expression_is_searched_as_it_stands(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    container_id = await open_log(dashboard, fakes)
    fakes.logs.write(container_id, "a (b", "a b")
    await expect(dashboard.lines).to_have_count(2)
    await dashboard.page.locator("[data-find]").fill("(b")
    await expect(dashboard.page.locator("[data-find-count]")).to_have_text("1 line")


async def test_lanes_can_be_hidden(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes, 3)
    await expect(dashboard.page.locator("[data-lines] li.lv").first).to_contain_text("kernel")
    await dashboard.page.locator("[data-lane=vm]").click()
    await expect(dashboard.page.locator("[data-lines] li.lv:not([hidden])")).to_have_count(0)
    await expect(dashboard.lines).to_have_count(3)
    await fakes.containers.pause(container_id, initiator="admin")
    await expect(dashboard.page.locator("[data-lines] li.ev").last).to_contain_text(
        "Paused by admin"
    )


async def test_long_line_wraps_and_can_stay_on_one_row(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes)
    fakes.logs.write(container_id, "x" * 400, "next")
    height = (
        "document.querySelector('[data-lines] li:not(.ev):not(.lv)').getBoundingClientRect().height"
    )
    await expect(dashboard.lines.last).to_have_text("next")
    assert await dashboard.page.evaluate(height) >= 60
    await dashboard.page.get_by_role("button", name="Wrap").click()
    await dashboard.page.wait_for_function(f"{height} === 20")


async def test_gap_is_shown_and_loaded(dashboard: Dashboard, fakes: Fakes) -> None:
    container_id = await open_log(dashboard, fakes, 5)
    await dashboard.page.context.set_offline(True)
    page = dashboard.page
    await page.evaluate("0")
    # A line that is silent for this long is cut by the tab itself; here the server cuts it.
    fakes.logs.write(container_id, *(f"line {number}" for number in range(6, 60_006)))
    await page.context.set_offline(False)
    await page.reload()
    await dashboard.wait_until_live()
    await expect(dashboard.lines.last).to_have_text("line 60005")
    assert min(await dashboard.seen_numbers()) > 59_000


async def test_removed_container_keeps_its_log_on_screen(
    dashboard: Dashboard, fakes: Fakes
) -> None:
    container_id = await open_log(dashboard, fakes, 5)
    fakes.containers.put(ended(fakes.containers.all[container_id], exit_code=0, at_ns=now_ns()))
    await fakes.containers.remove(container_id, initiator="admin")
    await expect(dashboard.page.locator(".toast")).to_contain_text("has been removed")
    await expect(dashboard.lines.last).to_have_text("line 5")
