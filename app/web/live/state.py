"""Topics about state: rows of the list, one container's header, counts, and pages that re-read."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.container import Container
from app.services.feed import Changes, Subscription
from app.web.container import HEAD_MACROS, ContainerHead, container_head
from app.web.containers import chips_for, list_for
from app.web.forms import parse_form
from app.web.listing import ListQuery, parse_query
from app.web.live.topics import Request, Send, topic
from app.web.rows import (
    ROW_MACROS,
    ContainerRow,
    Numbers,
    container_row,
    number_patch,
    row_numbers,
)
from app.web.states import Group, group_of

TICK_S = 1.0
SETTLE_S = 0.15  # a start changes a record several times: one message for all
REFRESH_S = {"overview": 5.0, "host": 5.0, "vms": 5.0, "images": 60.0}
REFRESH_PAUSE_S = 0.5
_NO_NUMBERS = Numbers("", ("", ""), "", "", None)
_AGE_FACTS = {"Up": "ct-age", "Ended": "ct-age"}


async def changes_or_tick(changes: Subscription, tick_s: float) -> Changes | None:
    """What changed, or None after `tick_s` without any change."""
    try:
        async with asyncio.timeout(tick_s):
            return await changes.next()
    except TimeoutError:
        return None


@dataclass
class Patch:
    """Texts and shapes that the tab has; only differences are sent."""

    texts: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, dict[str, str]] = field(default_factory=dict)

    def difference(
        self, texts: dict[str, str], shapes: dict[str, dict[str, str]] | None = None
    ) -> dict[str, Any]:
        """Message content with what is new, remembered as sent."""
        new_texts = {key: text for key, text in texts.items() if self.texts.get(key) != text}
        new_shapes = {
            key: shape for key, shape in (shapes or {}).items() if self.shapes.get(key) != shape
        }
        self.texts.update(new_texts)
        self.shapes.update(new_shapes)
        content: dict[str, Any] = {}
        if new_texts:
            content["text"] = new_texts
        if new_shapes:
            content["shape"] = new_shapes
        return content


class _ListView:
    """What one tab's list shows now."""

    def __init__(self, request: Request, query: ListQuery) -> None:
        self._request = request
        self._query = query
        self._rows: dict[str, ContainerRow] = {}
        self._order: list[str] = []
        self._visible: Sequence[Container] = ()
        self._patch = Patch()

    async def changed(self) -> dict[str, Any]:
        """Rows that differ in more than numbers, the order, and the counts."""
        services = self._request.services
        listing = await list_for(services, self._query)
        now_ns = time.time_ns()
        rows: dict[str, str] = {}
        for container in listing.visible:
            row = container_row(container, services.stats.history(container.id), now_ns)
            bare = replace(row, numbers=_NO_NUMBERS)
            if self._rows.get(row.short_id) != bare:
                self._rows[row.short_id] = bare
                rows[row.short_id] = self._request.templates.macro(ROW_MACROS, "container_row", row)
        self._visible = listing.visible
        order = [container.short_id for container in listing.visible]
        content = self._patch.difference(
            {f"group-{chip.key}": str(chip.count) for chip in chips_for(listing.every, self._query)}
        )
        if rows:
            content["rows"] = rows
        if order != self._order:
            self._order = order
            content["order"] = order
            self._rows = {short_id: self._rows[short_id] for short_id in order}
        return content

    def numbers(self) -> dict[str, Any]:
        """CPU, memory and times that differ from what was sent."""
        now_ns = time.time_ns()
        texts: dict[str, str] = {}
        shapes: dict[str, dict[str, str]] = {}
        for container in self._visible:
            history = self._request.services.stats.history(container.id)
            more_texts, more_shapes = number_patch(
                container.short_id, row_numbers(container, history, now_ns)
            )
            texts |= more_texts
            shapes |= more_shapes
        return self._patch.difference(texts, shapes)


@topic("containers")
async def list_topic(
    request: Request, _object_id: str, message: dict[str, Any], send: Send
) -> None:
    """The list as the tab's URL filters and sorts it."""
    encoded = message.get("query")
    query = parse_query(parse_form(encoded if isinstance(encoded, str) else ""))
    view = _ListView(request, query)
    async with request.services.stats.watch(), request.services.feed.subscribe() as changes:
        while True:
            content = await view.changed()
            if content:
                await send(content)
            while (changed := await changes_or_tick(changes, TICK_S)) is None or not (
                changed.containers
            ):
                numbers = view.numbers()
                if numbers:
                    await send(numbers)
            await asyncio.sleep(SETTLE_S)


@topic("container:")
async def container_topic(
    request: Request, object_id: str, _message: dict[str, Any], send: Send
) -> None:
    """One container's header, boot bar and memory, drawn by the page's own macros."""
    services = request.services
    sent: dict[str, object] = {}
    patch = Patch()
    async with services.stats.watch(), services.feed.subscribe() as changes:
        while True:
            container = await services.containers.get(object_id)
            head = await container_head(services, container, request.viewer.csrf_token)
            content = patch.difference(
                {
                    _AGE_FACTS[fact.name]: fact.value
                    for fact in head.facts
                    if fact.name in _AGE_FACTS
                }
            )
            html = _changed_panels(request, head, sent)
            if html:
                content["html"] = html
            if content:
                await send({"state": head.state, **content})
            if await changes_or_tick(changes, TICK_S) is not None:
                await asyncio.sleep(SETTLE_S)


def _changed_panels(
    request: Request, head: ContainerHead, sent: dict[str, object]
) -> dict[str, str]:
    steady_facts = tuple(fact for fact in head.facts if fact.name not in _AGE_FACTS)
    panels = {
        "ct-head": ("container_head", replace(head, facts=steady_facts, boot=None, memory=None)),
        "ct-boot": ("boot_panel", (head.boot, head.state)),
        "ct-memory": ("memory_panel", (head.memory, head.state)),
    }
    html: dict[str, str] = {}
    for element_id, (macro, key) in panels.items():
        if sent.get(element_id) != key:
            sent[element_id] = key
            html[element_id] = request.templates.macro(HEAD_MACROS, macro, head)
    return html


@topic("shell")
async def shell_topic(
    request: Request, _object_id: str, _message: dict[str, Any], send: Send
) -> None:
    """The counts that stand on every page."""
    patch = Patch()
    async with request.services.feed.subscribe() as changes:
        while True:
            containers = await request.services.containers.list()
            images = await request.services.images.list()
            groups = [group_of(one) for one in containers]
            content = patch.difference(
                {
                    "count-containers": str(len(groups)),
                    "count-failed": str(groups.count(Group.FAILED)),
                    "count-images": str(len(images)),
                    "count-vms": str(sum(one.vm_id is not None for one in containers)),
                }
            )
            if content:
                await send(content)
            await changes.next()
            await asyncio.sleep(SETTLE_S)


def _refresh_topic(name: str, interval_s: float) -> None:
    @topic(name)
    async def refresh(
        request: Request, _object_id: str, _message: dict[str, Any], send: Send
    ) -> None:
        """Tells the tab to read its page again: after a change, and at times for the numbers."""
        async with request.services.stats.watch(), request.services.feed.subscribe() as changes:
            while True:
                await changes_or_tick(changes, interval_s)
                await send({"refresh": True})
                await asyncio.sleep(REFRESH_PAUSE_S)


for _name, _interval_s in REFRESH_S.items():
    _refresh_topic(_name, _interval_s)
