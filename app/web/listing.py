"""Filter and sort of the container list: all of it is in the URL, so every view is a link."""

import re
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from app.domain.container import Container
from app.services.stats import ContainerSample
from app.web.forms import Form
from app.web.states import Group, group_of

PAGE_ROWS = 200
FILTER_LIMIT_CHARACTERS = 200
SORT_KEYS = ("name", "state", "image", "cpu", "memory", "uptime")
_GROUP_ORDER = {
    Group.FAILED: 0,
    Group.CHANGING: 1,
    Group.RUNNING: 2,
    Group.PAUSED: 3,
    Group.CREATED: 4,
    Group.STOPPED: 5,
}


@dataclass(frozen=True)
class ListQuery:
    """What the URL says.

    Attributes:
        text: Words that must all occur; `label:key=value` asks for a label.
        sort: One of SORT_KEYS, or empty: newest first.
        page: From 1.
    """

    text: str = ""
    group: Group | None = None
    sort: str = ""
    descending: bool = False
    page: int = 1

    def url(self, **changes: object) -> str:
        """The list's URL with some parts changed; the page starts over unless it is given."""
        query = replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]
        pairs: dict[str, str] = {}
        if query.text:
            pairs["q"] = query.text
        if query.group is not None:
            pairs["state"] = query.group.value
        if query.sort:
            pairs["sort"] = f"-{query.sort}" if query.descending else query.sort
        if query.page > 1:
            pairs["page"] = str(query.page)
        return "/containers" + (f"?{urlencode(pairs)}" if pairs else "")

    def sort_url(self, key: str) -> str:
        """Sort by a column: first ascending, then descending, then not at all."""
        if self.sort != key:
            return self.url(sort=key, descending=False)
        if not self.descending:
            return self.url(sort=key, descending=True)
        return self.url(sort="", descending=False)

    def aria_sort(self, key: str) -> str:
        """Value for `aria-sort` of a column."""
        if self.sort != key:
            return "none"
        return "descending" if self.descending else "ascending"


def parse_query(form: Form) -> ListQuery:
    """Read the query string; what makes no sense is ignored, since URLs are typed by people."""
    state = form.text("state")
    sort = form.text("sort")
    page = form.text("page")
    key = sort.removeprefix("-")
    return ListQuery(
        text=form.text("q")[:FILTER_LIMIT_CHARACTERS],
        group=Group(state) if state in set(Group) else None,
        sort=key if key in SORT_KEYS else "",
        descending=sort.startswith("-") and key in SORT_KEYS,
        page=max(int(page), 1) if re.fullmatch(r"[0-9]{1,6}", page) else 1,
    )


def matches(container: Container, query: ListQuery) -> bool:
    """Whether the filter lets the container through."""
    if query.group is not None and group_of(container) is not query.group:
        return False
    haystack = f"{container.name} {container.config.image} {container.id[:12]}".lower()
    return all(_word_matches(word, haystack, container) for word in query.text.split())


def _word_matches(word: str, haystack: str, container: Container) -> bool:
    if not word.startswith("label:"):
        return word.lower() in haystack or container.id.startswith(word.lower())
    key, separator, value = word.removeprefix("label:").partition("=")
    labels = container.config.labels
    return key in labels and (not separator or labels[key] == value)


def ordered(
    containers: list[Container],
    query: ListQuery,
    latest: dict[str, ContainerSample],
) -> list[Container]:
    """Sort as asked; equal ones by name, and what has no value last in either direction."""
    if not query.sort:
        return containers
    by_name = sorted(containers, key=lambda container: container.name.lower())
    if query.sort == "name":
        return by_name[::-1] if query.descending else by_name
    if query.sort == "image":
        return sorted(
            by_name, key=lambda container: container.config.image, reverse=query.descending
        )
    keyed = [(_sort_value(container, query.sort, latest), container) for container in by_name]
    present = [pair for pair in keyed if pair[0] is not None]
    present.sort(key=lambda pair: pair[0] or 0, reverse=query.descending)
    return [pair[1] for pair in present] + [pair[1] for pair in keyed if pair[0] is None]


def _sort_value(container: Container, key: str, latest: dict[str, ContainerSample]) -> float | None:
    if key == "state":
        return _GROUP_ORDER[group_of(container)]
    if key == "uptime":
        started_ns = container.started_at_ns
        return -started_ns if started_ns and container.is_live else None
    sample = latest.get(container.id)
    if sample is None:
        return None
    return sample.cpu_percent if key == "cpu" else sample.memory_bytes
