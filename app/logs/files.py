"""The log directory: which day files there are, open ones, damaged ones.

Used by the writer's thread only, whose connections the open files are.
"""

import sqlite3
from contextlib import suppress
from datetime import date
from pathlib import Path

from app.core.errors import CorruptData, SlipwayError, Unavailable
from app.domain.lines import LogCursor
from app.logs.catalogue import Catalogue
from app.logs.dayfile import DayFile
from app.logs.dayreader import load_contents, load_cursors
from app.logs.faults import log_fault
from app.logs.schema import CORRUPT_SUFFIX, FILE_SUFFIX, day_of, day_path

_SIDE_FILES = ("", "-wal", "-shm")


class DayFiles:
    """One DayFile for each day that is being written."""

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self.root = root
        self._catalogue = catalogue
        self._open: dict[date, DayFile] = {}

    def scan(self) -> list[tuple[date, str]]:
        """Make the directory and fill the catalogue; open files in which lines wait to be sealed.

        Returns:
            Days whose files are damaged, each with the reason; they are still in place.

        Raises:
            Unavailable: The directory or a file can't be used.
            Unsupported: A newer release wrote a file.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"Can't make the log directory {self.root}: {error.strerror}",
                advice="Check the owner of the data directory.",
            ) from error
        damaged: list[tuple[date, str]] = []
        for day in self.days():
            try:
                contents = load_contents(day_path(self.root, day))
                for stored in contents.states:
                    self._catalogue.record(
                        stored.container_id, stored.state, day=day, first_seq=stored.first_seq
                    )
                if contents.has_tail:
                    self.writable(day)
            except (sqlite3.Error, CorruptData) as error:
                fault = self.fault(error, day)
                if not isinstance(fault, CorruptData):
                    raise fault from error
                damaged.append((day, fault.message))
        return damaged

    def days(self) -> list[date]:
        """Days that have a file, oldest first."""
        found = (day_of(path) for path in self.root.glob(f"*{FILE_SUFFIX}"))
        return sorted(day for day in found if day is not None)

    def open_days(self) -> list[date]:
        """Days whose files are open."""
        return list(self._open)

    def writable(self, day: date) -> DayFile:
        """The file of a day, opened or made if need be.

        Raises:
            sqlite3.Error: As SQLite reports it.
            Unavailable: The directory can't be written.
        """
        file = self._open.get(day)
        if file is None:
            path = day_path(self.root, day)
            try:
                file = self._open[day] = DayFile(path, day)
            except OSError as error:
                raise Unavailable(
                    f"Can't make log file {path}: {error.strerror}",
                    advice="Check the disk and the owner of the data directory.",
                ) from error
        return file

    def retire(self, day: date) -> None:
        """Close a file that nothing more is written to."""
        self._open.pop(day).close(retire=True)

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()

    def remove(self, day: date) -> None:
        """Delete a day's lines."""
        self._close(day)
        self._catalogue.forget_day(day)
        for suffix in _SIDE_FILES:
            path = day_path(self.root, day)
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def remove_set_aside(self, before: date) -> int:
        """Delete damaged files of days before; returns how many."""
        removed = 0
        for path in self.root.glob(f"*{CORRUPT_SUFFIX}*"):
            day = day_of(path)
            if day is not None and day < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def set_aside(self, day: date) -> Path | None:
        """Rename a damaged file and what belongs to it; None if it is gone already.

        States stay in the catalogue, so that numbers are not used again.
        """
        self._close(day)
        path = day_path(self.root, day)
        if not path.exists():
            return None
        target = path.with_name(f"{day.isoformat()}{CORRUPT_SUFFIX}")
        count = 1
        while target.exists():
            count += 1
            target = target.with_name(f"{day.isoformat()}{CORRUPT_SUFFIX}{count}")
        for suffix in _SIDE_FILES:
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
        self._catalogue.forget_day(day)
        return target

    def newest_cursor(self, container_id: str, source: str) -> tuple[int, LogCursor] | None:
        """A source's newest cursor and its revision, wherever it lies.

        Raises:
            sqlite3.Error: As SQLite reports it.
            CorruptData: What is pending can't be read.
        """
        found = [
            (revision, cursor)
            for day in self._catalogue.days(container_id)
            for revision, cursor in load_cursors(day_path(self.root, day), container_id)
            if cursor.source == source
        ]
        return max(found, key=lambda item: item[0], default=None)

    def newest_cursors_of(self, container_id: str, day: date) -> list[tuple[int, LogCursor]]:
        """Cursors in a day's file that no other file has a newer state of; none if damaged."""
        with suppress(sqlite3.Error, CorruptData):
            return [
                (revision, cursor)
                for revision, cursor in load_cursors(day_path(self.root, day), container_id)
                if (revision, cursor) == self.newest_cursor(container_id, cursor.source)
            ]
        return []

    def fault(self, error: Exception, day: date) -> SlipwayError:
        """What an error on a day's file means; an error of ours is returned as it is."""
        path = day_path(self.root, day)
        match error:
            case SlipwayError():
                return error
            case sqlite3.Error():
                return log_fault(error, path)
            case _:
                return SlipwayError(f"Can't write log file {path}: {error!r}")

    def _close(self, day: date) -> None:
        file = self._open.pop(day, None)
        if file is not None:
            file.close()
