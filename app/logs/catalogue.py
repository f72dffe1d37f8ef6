"""What is known in memory of every container's log: how far it goes and which files hold it.

Written by the writer's thread after each commit, read from any thread.
"""

import threading
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class LogState:
    """Where a container's log stands.

    Attributes:
        last_seq: Of the newest line, 0 before any.
        revision: Counts the container's appends; of two stored states the higher is the newer, by
            whatever the clock said when they were written.
    """

    last_seq: int = 0
    revision: int = 0


NO_STATE = LogState()


@dataclass(frozen=True, slots=True)
class Span:
    """One day's file holds lines of a container; not all of these numbers need be in it."""

    day: date
    first_seq: int
    last_seq: int


class Catalogue:
    """States and spans of all containers; every method is atomic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, LogState] = {}
        self._days: dict[str, dict[date, Span | None]] = {}

    def state(self, container_id: str) -> LogState:
        """The newest state, NO_STATE for an unknown container."""
        return self._states.get(container_id, NO_STATE)

    def spans(self, container_id: str) -> list[Span]:
        """Files that hold lines, by their first number."""
        with self._lock:
            found = list(self._days.get(container_id, {}).values())
        return sorted([span for span in found if span], key=lambda span: span.first_seq)

    def record(
        self, container_id: str, state: LogState, *, day: date, first_seq: int | None
    ) -> None:
        """Note what a day's file says or has been given; an older state does not replace a newer.

        `first_seq` is that of lines in the file; None if it has none, or got none.
        """
        with self._lock:
            if state.revision >= self._states.get(container_id, NO_STATE).revision:
                self._states[container_id] = state
            days = self._days.setdefault(container_id, {})
            span = days.setdefault(day, None)
            if first_seq is not None:
                first_seq = min(first_seq, span.first_seq) if span else first_seq
                days[day] = Span(day, first_seq, state.last_seq)

    def days(self, container_id: str) -> list[date]:
        """Days whose files mention a container, newest first."""
        with self._lock:
            return sorted(self._days.get(container_id, {}), reverse=True)

    def containers(self, day: date) -> list[str]:
        """Containers that a day's file mentions."""
        with self._lock:
            return [name for name, days in self._days.items() if day in days]

    def forget(self, container_id: str) -> None:
        """Drop a container whose log was erased."""
        with self._lock:
            self._states.pop(container_id, None)
            self._days.pop(container_id, None)

    def forget_day(self, day: date) -> None:
        """Drop a file that is gone; states stay, so that numbers are not used again."""
        with self._lock:
            for days in self._days.values():
                days.pop(day, None)
