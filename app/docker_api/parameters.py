"""Query parameters in Docker's forms."""

import json
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import BeforeValidator

from app.core.errors import InvalidArgument

_FALSE = frozenset({"", "0", "no", "false", "none"})  # moby, httputils/form.go


def _flag(value: object) -> object:
    return value.strip().lower() not in _FALSE if isinstance(value, str) else value


def _number(value: object) -> object:
    return 0 if value == "" else value


Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[int, BeforeValidator(_number)]

Filters = Mapping[str, tuple[str, ...]]


def parse_filters(text: str, allowed: Collection[str]) -> Filters:
    """Read `filters`: `{"name": ["value"]}`, or `{"name": {"value": true}}` of old clients.

    Raises:
        InvalidArgument: It is neither, or has a name that `allowed` has not.
    """
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except ValueError as exc:
        raise InvalidArgument("invalid filter") from exc
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid filter")
    filters = {name: _values(wanted) for name, wanted in raw.items()}
    for name in filters:
        if name not in allowed:
            raise InvalidArgument(f"invalid filter '{name}'")
    return {name: values for name, values in filters.items() if values}


def _values(wanted: object) -> tuple[str, ...]:
    if isinstance(wanted, dict):
        wanted = [value for value, is_wanted in wanted.items() if is_wanted]
    if isinstance(wanted, list) and all(isinstance(value, str) for value in wanted):
        return tuple(wanted)
    raise InvalidArgument("invalid filter")


def filter_flag(filters: Filters, name: str) -> bool | None:
    """A filter that is true or false; None if it is not given.

    Raises:
        InvalidArgument: It is neither, or both.
    """
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    if values <= {"1", "true"}:
        return True
    if values <= {"0", "false"}:
        return False
    raise InvalidArgument(f"invalid filter '{name}={list(filters[name])}'")
