"""What one transaction adds: nothing of it is known outside before the commit."""

from collections.abc import Sequence
from dataclasses import replace

from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogLine
from app.logs.blocks import TIME_MAX_NS, number_lines
from app.logs.catalogue import Catalogue, LogState
from app.logs.dayfile import DayFile


class Group:
    """Numbers lines and writes them; use within the file's transaction, then `record`.

    Attributes:
        offsets: Of the cursors written, by container and source.
    """

    def __init__(self, file: DayFile, catalogue: Catalogue) -> None:
        self._file = file
        self._catalogue = catalogue
        self._states: dict[str, LogState] = {}
        self._first_seqs: dict[str, int] = {}
        self.offsets: dict[tuple[str, str], int] = {}

    def put(
        self, container_id: str, lines: Sequence[NewLine], cursor: LogCursor
    ) -> tuple[LogLine, ...]:
        """Write one append; returns its lines with their numbers."""
        before = self._states.get(container_id) or self._catalogue.state(container_id)
        lines = [
            line if 0 <= line.time_ns <= TIME_MAX_NS else _with_storable_time(line)
            for line in lines
        ]
        first_seq = before.last_seq + 1
        state = LogState(before.last_seq + len(lines), before.revision + 1)
        if lines:
            self._file.put_lines(container_id, first_seq, lines)
            self._first_seqs.setdefault(container_id, first_seq)
        self._file.put_cursor(container_id, cursor, state.revision)
        self._states[container_id] = state
        self.offsets[container_id, cursor.source] = cursor.offset
        return tuple(number_lines(lines, first_seq))

    def finish(self) -> None:
        """Write where the logs stand now; the last step before the commit."""
        for container_id, state in self._states.items():
            self._file.put_state(container_id, state, first_seq=self._first_seqs.get(container_id))

    def record(self) -> None:
        """Make it known, after the commit."""
        for container_id, state in self._states.items():
            self._catalogue.record(
                container_id,
                state,
                day=self._file.day,
                first_seq=self._first_seqs.get(container_id),
            )


def _with_storable_time(line: NewLine) -> NewLine:
    return replace(line, time_ns=min(max(line.time_ns, 0), TIME_MAX_NS))
