"""What happened, in Docker's words where it has them (moby, api/types/events)."""

from dataclasses import dataclass, field
from enum import StrEnum


class EventType(StrEnum):
    """What kind of object an event is about."""

    CONTAINER = "container"
    VM = "vm"
    IMAGE = "image"
    HOST = "host"
    ACCOUNT = "account"


@dataclass(frozen=True)
class Event:
    """One entry of the journal; ids grow and are never used again.

    Attributes:
        action: create, start, die, kill, stop (was asked for), stopped, oom, pause, unpause,
            rename, destroy, restart (by policy), restarted (as asked for); ready, unresponsive,
            responsive, end, adopt for a VM; import, tag, untag, delete for an image.
        actor_id: Id of the object; `actor_name` is its name then.
        initiator: Who asked: a user's name, `token:<name>`, a peer of the Docker API, or `engine`.
        subject: What described the object then: a container's image, as `image`, and its labels.
    """

    type: EventType
    action: str
    actor_id: str
    actor_name: str
    time_ns: int
    initiator: str = "engine"
    attributes: dict[str, str] = field(default_factory=dict)
    id: int = 0
    subject: dict[str, str] = field(default_factory=dict)
