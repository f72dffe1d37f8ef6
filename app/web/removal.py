"""What a removal takes away, and what must be typed before it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from app.domain.container import Container, ContainerState
from app.web.rows import uptime_text
from app.web.shell import Shell
from app.web.states import Mark, container_mark


@dataclass(frozen=True)
class Loss:
    """One container that would be gone."""

    id: str
    name: str
    image: str
    mark: Mark
    since: str
    is_running: bool


@dataclass(frozen=True)
class RemovalPage:
    """Context of the question.

    Attributes:
        confirmation: What must be typed; empty when none of the containers runs.
        leaves: Whether the page that asks is the removed container's own.
    """

    template: ClassVar[str] = "remove.html"
    shell: Shell
    losses: tuple[Loss, ...]
    confirmation: str
    live_total: int
    back: str
    leaves: bool
    problem: str


def is_running(container: Container) -> bool:
    """Whether a removal would end something."""
    return container.is_live or container.state is ContainerState.RESTARTING


def removal_confirmation(containers: Sequence[Container]) -> str:
    """The name when it is one, the number when they are several; empty when nothing runs."""
    if not any(is_running(one) for one in containers):
        return ""
    return containers[0].name if len(containers) == 1 else str(len(containers))


def losses_of(containers: Sequence[Container], now_ns: int) -> list[Loss]:
    """What to list, the running ones first."""
    losses = [
        Loss(
            id=one.id,
            name=one.name,
            image=one.config.image,
            mark=container_mark(one),
            since=uptime_text(one, now_ns),
            is_running=is_running(one),
        )
        for one in containers
    ]
    return sorted(losses, key=lambda loss: not loss.is_running)
