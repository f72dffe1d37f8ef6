"""A start by its stages: the bar on the container's page and the marks in its log."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.container import Container
from app.domain.vm import BootStage
from app.web.formats import milliseconds

NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class StageView:
    """One stage as a piece of the bar, in milliseconds from its left end."""

    css_class: str
    name: str
    start_ms: float
    duration_ms: float

    @property
    def text(self) -> str:
        """Its length for the key."""
        return milliseconds(self.duration_ms)


@dataclass(frozen=True)
class BootView:
    """The last start."""

    started_at_ns: int
    total_ms: float
    stages: tuple[StageView, ...]


@dataclass(frozen=True)
class TimelineMark:
    """A moment between log lines; `lane` is "vm" or "event"."""

    time_ns: int
    lane: str
    text: str


def boot_view(container: Container) -> BootView | None:
    """The bar, or None when no start has come to its end yet."""
    total_ms = sum(stage.duration_ms for stage in container.boot_stages)
    if container.started_at_ns is None or total_ms <= 0:
        return None
    return BootView(container.started_at_ns, total_ms, _pieces(container.boot_stages))


def _pieces(stages: Sequence[BootStage]) -> tuple[StageView, ...]:
    pieces: list[StageView] = []
    start_ms = 0.0
    for index, stage in enumerate(stages):
        is_last = index == len(stages) - 1
        # Timber is the VM, in two shades so that neighbours differ; water is the container's PID 1.
        css_class = "f-app" if is_last else "f-vmm" if index % 2 else "f-kern"
        pieces.append(StageView(css_class, stage.name, start_ms, stage.duration_ms))
        start_ms += stage.duration_ms
    return tuple(pieces)


def boot_marks(container: Container) -> list[TimelineMark]:
    """The stages as moments, counted back from when PID 1 ran."""
    view = boot_view(container)
    if view is None:
        return []
    begun_ns = view.started_at_ns - int(view.total_ms * NS_PER_MS)
    return [
        TimelineMark(
            begun_ns + int((piece.start_ms + piece.duration_ms) * NS_PER_MS),
            "vm",
            f"{piece.name}: {piece.text}",
        )
        for piece in view.stages
    ]
