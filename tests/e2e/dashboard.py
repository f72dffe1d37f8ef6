"""The dashboard as its operator sees it: what the tests do and read, in one place."""

import re
from pathlib import Path
from typing import Any

from playwright.async_api import ConsoleMessage, Locator, Page, expect

# Chromium reports each answer of 4xx as an error of its own; the tests ask for some.
_EXPECTED = re.compile(r"the server responded with a status of 4\d\d|WebSocket connection to")
LIVE_TIMEOUT_MS = 15_000


class Dashboard:
    """One browser page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not _EXPECTED.search(message.text):
            self.faults.append(message.text)

    def require_no_faults(self) -> None:
        """No script failed, and nothing ran into the content security policy."""
        assert self.faults == []

    async def open(self, path: str) -> None:
        """Go to a page of the dashboard."""
        await self.page.goto(self.url + path)

    async def set_up(self, link: str, name: str, password: str) -> None:
        """Create the administrator by the one-time link."""
        await self.page.goto(link)
        await self.page.get_by_label("Name").fill(name)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Create administrator").click()
        await expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    async def sign_in(self, name: str, password: str) -> None:
        """Sign in and arrive at the overview."""
        await self.open("/sign-in")
        await self.page.get_by_label("Name").fill(name)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    async def wait_until_live(self) -> None:
        """The websocket stands."""
        await expect(self.page.locator("[data-link]")).to_contain_text(
            "Live", timeout=LIVE_TIMEOUT_MS
        )

    async def launch(self, **fields: str) -> None:
        """Fill the form by its field names and launch."""
        await self.open("/launch")
        for name, value in fields.items():
            await self.page.locator(f"#launch [name={name}]").fill(value)
        await self.page.locator("#launch button.go").click()
        await expect(self.page.locator("#ct-head")).to_be_visible()

    @property
    def state(self) -> Locator:
        """The container's state beside its name."""
        return self.page.locator("#ct-head .st:not(.st-vm)").first

    @property
    def lines(self) -> Locator:
        """Rows of the log that are in sight and are the container's own."""
        return self.page.locator("[data-lines] > li:not([hidden]):not(.ev):not(.lv) .m")

    async def click_action(self, label: str) -> None:
        """One of the header's buttons."""
        await self.page.locator("#ct-head").get_by_role("button", name=label, exact=True).click()

    async def remove_container(self, name: str, *, is_running: bool = False) -> None:
        """By the dialog of the container's page."""
        await self.page.locator("#ct-head").get_by_role("link", name="Remove…").click()
        dialog = self.page.locator("#dialog")
        await expect(dialog).to_be_visible()
        if is_running:
            await dialog.get_by_label(re.compile("to confirm")).fill(name)
        await dialog.get_by_role("button", name=re.compile("^Remove")).click()

    async def row(self, name: str) -> Locator:
        """A row of the list."""
        return self.page.locator("[data-rows] tr", has=self.page.get_by_text(name, exact=True))

    async def seen_numbers(self) -> list[int]:
        """Sequence numbers of the lines in sight."""
        numbers: list[int] = await self.page.evaluate(
            "[...document.querySelectorAll('[data-lines] > li:not([hidden])')]"
            ".map((row) => row.item.seq).filter(Boolean)"
        )
        return numbers

    async def is_wider_than_the_window(self) -> bool:
        """Whether the page scrolls sideways."""
        wide: bool = await self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wide

    async def shoot(self, directory: Path, name: str) -> None:
        """Keep a picture."""
        await self.page.screenshot(path=directory / f"{name}.png")

    async def violations(self, axe_source: str) -> list[str]:
        """What axe-core finds: WCAG 2.2 AA and best practice."""
        # As high as the page, or what lies under a bar at this moment counts as too small.
        height: int = await self.page.evaluate("document.documentElement.scrollHeight")
        size = self.page.viewport_size or {"width": 1280, "height": 900}
        await self.page.set_viewport_size({"width": size["width"], "height": height + 60})
        # Evaluated by the debugger protocol, which the page's policy does not bind.
        await self.page.evaluate(axe_source)
        result: dict[str, Any] = await self.page.evaluate(
            """axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa',
            'wcag22aa', 'best-practice']})"""
        )
        await self.page.set_viewport_size(size)
        return [
            f"{found['id']}: {node['target']} {node['failureSummary']}"
            for found in result["violations"]
            for node in found["nodes"]
        ]
