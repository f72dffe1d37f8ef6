"""Filters of /events, by moby's rules (daemon/events/filter.go)."""

from typing import Any

from app.docker_api.parameters import Filters

FILTERS = frozenset(
    {
        "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
        "scope", "secret", "service", "type", "volume",
    }
)  # fmt: skip
_BY_NAME = frozenset(
    {"config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"}
)


def is_wanted(event: dict[str, Any], filters: Filters) -> bool:
    """Whether all filters that are given let the event through; each takes several values."""
    return all(_matches(event, name, values) for name, values in filters.items())


def _matches(event: dict[str, Any], name: str, values: tuple[str, ...]) -> bool:
    kind, actor = event["Type"], event["Actor"]
    if name == "type":
        return kind in values
    if name == "scope":
        return event["scope"] in values
    if name == "event":
        # `exec_start: ls` and `health_status: healthy` also go by what stands before the colon.
        return event["Action"] in values or event["Action"].partition(":")[0] in values
    if name == "label":
        return all(_has_label(actor["Attributes"], value) for value in values)
    if name == "image":
        return _matches_image(kind, actor, values)
    assert name in _BY_NAME  # noqa: S101 - parse_filters has checked the name
    return kind == name and any(
        actor["ID"].startswith(value) or actor["Attributes"].get("name", "").startswith(value)
        for value in values
    )


def _has_label(attributes: dict[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in attributes and (not separator or attributes[name] == value)


def _matches_image(kind: str, actor: dict[str, Any], values: tuple[str, ...]) -> bool:
    name = actor["Attributes"].get("name" if kind == "image" else "image", "")
    known = {actor["ID"], name, _without_tag(actor["ID"]), _without_tag(name)}
    return not known.isdisjoint(values)


def _without_tag(reference: str) -> str:
    head, separator, tag = reference.rpartition(":")
    return head if separator and "/" not in tag else reference
