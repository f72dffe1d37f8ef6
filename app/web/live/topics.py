"""Names of topics, and what a topic gets."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app.web.sessions import Viewer
from app.web.templating import Templates

if TYPE_CHECKING:
    from app.services.bundle import Services

Send = Callable[[dict[str, Any]], Awaitable[None]]
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """What every topic may use."""

    services: "Services"
    templates: Templates
    viewer: Viewer


class Topic(Protocol):
    """Sends until it is cancelled, or returns when there is nothing more to come."""

    async def __call__(
        self, request: Request, object_id: str, message: dict[str, Any], send: Send, /
    ) -> None:
        """`object_id` follows the colon of the topic's name; `message` is what was asked."""


_topics: dict[str, Topic] = {}
_object_topics: dict[str, Topic] = {}


def topic(name: str) -> Callable[[Topic], Topic]:
    """Register a topic; a name that ends in a colon takes a container's full id behind it."""

    def register(function: Topic) -> Topic:
        registry = _object_topics if name.endswith(":") else _topics
        registry[name.removesuffix(":")] = function
        return function

    return register


def find_topic(name: str) -> Topic | None:
    """The topic of that name, or None."""
    kind, colon, object_id = name.partition(":")
    if not colon:
        return _topics.get(kind)
    return _object_topics.get(kind) if _ID.fullmatch(object_id) else None


def whole_number(message: dict[str, Any], key: str, default: int) -> int:
    """A number from the tab; anything else counts as the default."""
    value = message.get(key)
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
    )
