"""GET /containers/json: which containers, and how each is shown (moby, daemon/list.go)."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors import InvalidArgument, NotFound
from app.docker_api.container_view import (
    NO_IMAGE,
    merged_labels,
    networks_view,
    runs,
    shown_health,
    status_of,
)
from app.docker_api.host_config import mounts_view
from app.docker_api.parameters import Filters, filter_flag
from app.docker_api.spans import human_duration
from app.domain.container import Container, ContainerState
from app.domain.container_config import merge_command
from app.domain.health import Health, HealthStatus
from app.domain.image import Image

FILTERS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since "
    "status volume".split()
)
STATUSES = frozenset("created restarting running removing paused exited dead".split())
HEALTHS = frozenset({"none", *HealthStatus})


@dataclass(frozen=True)
class Listed:
    """A container with its image, which may be gone."""

    container: Container
    image: Image | None


Test = Callable[[Listed], bool]
Values = tuple[str, ...]
FindContainer = Callable[[str], Container | None]
FindImage = Callable[[str], Image]


def select(
    all_containers: Sequence[Listed],
    filters: Filters,
    *,
    all: bool,
    limit: int,
    find: FindContainer,
    find_image: FindImage,
) -> list[Listed]:
    """The containers that a request asks for, newest first.

    Args:
        all_containers: Newest first.
        filters: By name; different names must all fit, of several values one.
        all: Also those that don't run; `status`, `exited` and a limit imply it.
        limit: Only the newest so many; 0 or less: no limit.
        find: A container by name or id, for `before` and `since`.
        find_image: An image by name or id; raises NotFound.

    Raises:
        InvalidArgument: A value of a filter means nothing.
        NotFound: `before` or `since` names no container.
    """
    if filter_flag(filters, "is-task"):
        return []
    tests = [_MAKERS[name](values) for name, values in filters.items() if name in _MAKERS]
    if "ancestor" in filters:
        tests.append(_of_images(_image_ids(filters["ancestor"], find_image)))
    tests += [_before(_found(value, find)) for value in filters.get("before", ())]
    tests += [_since(_found(value, find)) for value in filters.get("since", ())]
    if not (all or limit > 0 or {"status", "exited", "before", "since"} & filters.keys()):
        tests.append(lambda each: runs(each.container))
    chosen = [each for each in all_containers if _fits(each, tests)]
    return chosen[:limit] if limit > 0 else chosen


def _fits(each: Listed, tests: list[Test]) -> bool:
    return not any(not test(each) for test in tests)


def _by_status(values: Values) -> Test:
    _check_values("status", values, STATUSES)
    return lambda each: status_of(each.container) in values


def _by_health(values: Values) -> Test:
    _check_values("health", values, HEALTHS)
    return lambda each: _health_word(each) in values


def _by_exit_code(values: Values) -> Test:
    codes = _codes(values)
    return lambda each: _exited_with(each.container, codes)


def _of_images(ids: frozenset[str]) -> Test:
    return lambda each: each.container.image_id in ids


def _check_values(name: str, values: Values, known: frozenset[str]) -> None:
    for value in values:
        if value not in known:
            raise InvalidArgument(f"invalid filter '{name}={value}'")


def _codes(values: Values) -> frozenset[int]:
    try:
        return frozenset(int(value) for value in values)
    except ValueError as error:
        raise InvalidArgument(f"invalid filter 'exited={values[0]}'") from error


def _image_ids(values: Values, find_image: FindImage) -> frozenset[str]:
    ids = set()
    for value in values:
        try:
            ids.add(find_image(value).id)
        except (NotFound, InvalidArgument):
            continue  # as Docker: what there is not has no containers
    return frozenset(ids)


def _found(reference: str, find: FindContainer) -> Container:
    container = find(reference)
    if container is None:
        raise NotFound(f"No such container: {reference}")
    return container


def _before(other: Container) -> Test:
    return lambda each: each.container.created_at_ns < other.created_at_ns


def _since(other: Container) -> Test:
    return lambda each: each.container.created_at_ns > other.created_at_ns


def _exited_with(container: Container, codes: frozenset[int]) -> bool:
    has_ended = container.started_at_ns is not None and not runs(container)
    return has_ended and container.exit_code in codes


def _matches(patterns: Values, text: str) -> bool:
    """Docker's Match: a regular expression anywhere in the text, or the text itself."""
    for pattern in patterns:
        try:
            found = re.search(pattern, text) is not None
        except re.error:
            found = False
        if found or pattern == text:
            return True
    return False


def _name_matches(patterns: Values, name: str) -> bool:
    return _matches(patterns, f"/{name}") or _matches(patterns, name)


def labels_match(wanted: Values, labels: dict[str, str]) -> bool:
    """Whether every `key` or `key=value` is there."""
    for item in wanted:
        key, has_value, value = item.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    return True


def _labels(each: Listed) -> dict[str, str]:
    return merged_labels(each.container.config, each.image.config if each.image else NO_IMAGE)


def _exposes(each: Listed, wanted: Values) -> bool:
    ports = set(each.container.config.exposed_ports)
    if each.image is not None:
        ports |= set(each.image.config.exposed_ports)
    return any(port in ports or f"{port}/tcp" in ports for port in wanted)


def _health(each: Listed) -> Health | None:
    return shown_health(each.container, each.image.config if each.image else NO_IMAGE)


def _health_word(each: Listed) -> str:
    health = _health(each)
    return "none" if health is None else str(health.status)


_MAKERS: dict[str, Callable[[Values], Test]] = {
    "id": lambda values: lambda each: _matches(values, each.container.id),
    "name": lambda values: lambda each: _name_matches(values, each.container.name),
    "label": lambda values: lambda each: labels_match(values, _labels(each)),
    "expose": lambda values: lambda each: _exposes(each, values),
    "network": lambda values: lambda _: "none" in values,
    "volume": lambda _: lambda _each: False,
    "publish": lambda _: lambda _each: False,
    "status": _by_status,
    "health": _by_health,
    "exited": _by_exit_code,
}


def list_view(each: Listed, image_name: str, sizes: dict[str, int]) -> dict[str, Any]:
    """A container in the list.

    Args:
        each: What to show.
        image_name: As it was given, or the id if that name now means another image.
        sizes: SizeRw and SizeRootFs, or nothing.
    """
    container, config = each.container, each.container.config
    entrypoint, command = merge_command(config, each.image.config if each.image else NO_IMAGE)
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": image_name,
        "ImageID": container.image_id,
        "Command": _command((*entrypoint, *command)),
        "Created": container.created_at_ns // 10**9,
        "Ports": [],
        **sizes,
        "Labels": _labels(each),
        "State": status_of(container),
        "Status": status_text(container, _health(each), now_ns=time.time_ns()),
        "HostConfig": {"NetworkMode": config.network_mode},
        "NetworkSettings": {"Networks": networks_view()},
        "Mounts": mounts_view(config),
    }


def _command(words: tuple[str, ...]) -> str:
    return " ".join(
        f"'{word}'" if " " in word and place else word for place, word in enumerate(words)
    )


def status_text(container: Container, health: Health | None, *, now_ns: int) -> str:
    """Docker's sentence: "Up 3 seconds (healthy)", "Exited (0) 2 minutes ago"."""
    state = container.state
    if state is ContainerState.RESTARTING:
        since = _ago(container.finished_at_ns, now_ns)
        return f"Restarting ({container.exit_code}) {since} ago"
    if runs(container):
        up = f"Up {_ago(container.started_at_ns, now_ns)}"
        if state is ContainerState.PAUSED:
            return f"{up} (Paused)"
        if health is None:
            return up
        word = str(health.status)
        return f"{up} (health: {word})" if word == HealthStatus.STARTING else f"{up} ({word})"
    if state is ContainerState.REMOVING:
        return "Removal In Progress"
    if state is ContainerState.DEAD:
        return "Dead"
    if container.started_at_ns is None:
        return "Created"
    if container.finished_at_ns is None:
        return ""
    return f"Exited ({container.exit_code}) {_ago(container.finished_at_ns, now_ns)} ago"


def _ago(since_ns: int | None, now_ns: int) -> str:
    return human_duration(max(now_ns - (since_ns or now_ns), 0) / 1e9)
