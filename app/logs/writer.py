"""The one thread that writes log files.

All that waits is written in one transaction; while that commits, the next gathers. Every caller
waits for the commit of what it gave, so the queue holds no more than the callers do.
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

from app.core.errors import Conflict, CorruptData, SlipwayError, Unavailable
from app.domain.lines import LogCursor, NewLine
from app.domain.log import LogLine
from app.logs.catalogue import Catalogue
from app.logs.faults import log_fault
from app.logs.files import DayFiles
from app.logs.group import Group

T = TypeVar("T")
Appended = tuple[LogLine, ...]
GROUP_WAIT_S = 0.05  # gathering ends then at the latest
GROUP_APPENDS = 1000
TICK_S = 5.0
OFFSETS_KEPT = 10_000


@dataclass(frozen=True)
class _Append:
    container_id: str
    lines: Sequence[NewLine]
    cursor: LogCursor
    done: "Future[Appended]"


@dataclass(frozen=True)
class _Task:
    run: Callable[[], Any]
    done: "Future[Any]"


class LogWriter:
    """Started once, stopped once.

    Args:
        today: The UTC date, which names the file that new lines go to.
        on_fault: Told of what went wrong without anybody waiting for it; called in the thread.
    """

    def __init__(
        self,
        files: DayFiles,
        catalogue: Catalogue,
        *,
        today: Callable[[], date],
        on_fault: Callable[[str], None],
    ) -> None:
        self._files = files
        self._catalogue = catalogue
        self._today = today
        self._on_fault = on_fault
        self._jobs: queue.SimpleQueue[_Append | _Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._offsets: dict[tuple[str, str], int] = {}
        self._next_tick_s = time.monotonic() + TICK_S
        self._last_fault = ""

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what has been given before, close the files and end the thread; blocks."""
        self._jobs.put(None)
        self._thread.join()

    def append(
        self, container_id: str, lines: Sequence[NewLine], cursor: LogCursor
    ) -> "Future[Appended]":
        """Write lines and cursor; the future is done once they are committed."""
        job = _Append(container_id, lines, cursor, Future())
        self._jobs.put(job)
        return job.done

    def submit(self, run: Callable[[], T]) -> "Future[T]":
        """Run in the thread, after all that was given before."""
        job = _Task(run, Future())
        self._jobs.put(job)
        return job.done

    # What follows runs in the thread; the public part of it by `submit`.

    def scan(self) -> None:
        """Read what the files hold; damaged ones are set aside. The first thing to run.

        Raises:
            Unavailable: The directory or a file can't be used.
            Unsupported: A newer release wrote a file.
        """
        for day, reason in self._files.scan():
            self.set_aside(day, reason)

    def find_cursor(self, container_id: str, source: str) -> LogCursor:
        """The newest cursor of a source; offset 0 for an unknown one."""
        found = self._files.newest_cursor(container_id, source)
        return found[1] if found else LogCursor(source)

    def erase_slice(self, container_id: str) -> bool:
        """Delete a part of a container's log; True while there is more."""
        for day in self._catalogue.days(container_id):
            file = self._files.writable(day)
            with file.transaction():
                is_more = file.erase_slice(container_id)
            if is_more:
                return True
        self._catalogue.forget(container_id)
        self._offsets = {key: at for key, at in self._offsets.items() if key[0] != container_id}
        return False

    def prune(self, before: date, containers: Collection[str]) -> int:
        """Delete the files of days before; keep where the logs of these containers stand."""
        removed = 0
        for day in self._files.days():
            if day < before:
                self._carry_over(day, containers)
                self._files.remove(day)
                removed += 1
        return removed + self._files.remove_set_aside(before)

    def set_aside(self, day: date, reason: str) -> None:
        """Get a damaged file out of the way and record in a sound one how far its logs went."""
        mentioned = self._catalogue.containers(day)
        kept = self._files.set_aside(day)
        if kept is None:
            return
        self._offsets.clear()
        file = self._files.writable(self._today())
        with file.transaction():
            for container_id in mentioned:
                state = self._catalogue.state(container_id)
                state = replace(state, revision=state.revision + 1)
                file.put_state(container_id, state, first_seq=None)
                self._catalogue.record(container_id, state, day=file.day, first_seq=None)
        self._on_fault(f"{reason}; set aside as {kept}, its lines are missing from the logs")

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            jobs, is_stopping = self._gather()
            appends: list[_Append] = []
            for job in jobs:
                if not job.done.set_running_or_notify_cancel():
                    continue
                if isinstance(job, _Append):
                    appends.append(job)
                    continue
                self._commit(appends)
                appends = []
                self._run_task(job)
            self._commit(appends)
            if time.monotonic() >= self._next_tick_s:
                self._tick()
        self._files.close()
        self._refuse_the_rest()

    def _gather(self) -> tuple[list[_Append | _Task], bool]:
        """Wait for work; take what is there, and whether it is the end."""
        jobs: list[_Append | _Task] = []
        now_s = time.monotonic()
        wait_s = max(self._next_tick_s - now_s, 0.001)
        with suppress(queue.Empty):
            while len(jobs) < GROUP_APPENDS:
                job = self._jobs.get(timeout=wait_s) if not jobs else self._jobs.get_nowait()
                if job is None:
                    return jobs, True
                if not jobs:
                    now_s = time.monotonic()
                jobs.append(job)
                if time.monotonic() - now_s > GROUP_WAIT_S:
                    break
        return jobs, False

    def _run_task(self, job: _Task) -> None:
        try:
            result = job.run()
        except sqlite3.Error as error:
            job.done.set_exception(log_fault(error, self._files.root))
        except Exception as error:  # noqa: BLE001 - goes to who asked; the thread must go on
            job.done.set_exception(error)
        else:
            job.done.set_result(result)

    def _commit(self, appends: list[_Append]) -> None:
        """Write a group; once more into a new file if the file is damaged."""
        if not appends:
            return
        day = self._today()
        try:
            try:
                results = self._write(day, appends)
            except (sqlite3.Error, CorruptData) as error:
                fault = self._files.fault(error, day)
                if not isinstance(fault, CorruptData):
                    raise
                self.set_aside(day, fault.message)
                results = self._write(day, appends)
        except Exception as error:  # noqa: BLE001 - goes to who asked; the thread must go on
            for job in appends:
                # One each: an exception that several tasks raise would mix their tracebacks.
                job.done.set_exception(self._files.fault(error, day))
            return
        for job, result in zip(appends, results, strict=True):
            if isinstance(result, SlipwayError):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)

    def _write(self, day: date, appends: list[_Append]) -> list[Appended | SlipwayError]:
        file = self._files.writable(day)
        group = Group(file, self._catalogue)
        results: list[Appended | SlipwayError] = []
        with file.transaction():
            for job in appends:
                key = (job.container_id, job.cursor.source)
                stored_offset = group.offsets.get(key, self._stored_offset(*key))
                if job.cursor.offset < stored_offset:
                    results.append(
                        Conflict(
                            f"The log of container {job.container_id} holds {job.cursor.source} up"
                            f" to byte {stored_offset}; output that ends at {job.cursor.offset} was"
                            " stored before"
                        )
                    )
                    continue
                results.append(group.put(job.container_id, job.lines, job.cursor))
            group.finish()
        group.record()
        if len(self._offsets) > OFFSETS_KEPT:
            self._offsets.clear()
        self._offsets.update(group.offsets)
        return results

    def _stored_offset(self, container_id: str, source: str) -> int:
        offset = self._offsets.get((container_id, source))
        if offset is None:
            offset = self.find_cursor(container_id, source).offset
            self._offsets[container_id, source] = offset
        return offset

    def _carry_over(self, day: date, containers: Collection[str]) -> None:
        """Write to today's file what is newest of containers that exist in a file about to go."""
        file = self._files.writable(self._today())
        kept = [name for name in self._catalogue.containers(day) if name in containers]
        with file.transaction():
            for container_id in kept:
                for revision, cursor in self._files.newest_cursors_of(container_id, day):
                    file.put_cursor(container_id, cursor, revision)
                file.put_state(container_id, self._catalogue.state(container_id), first_seq=None)
        for container_id in kept:
            state = self._catalogue.state(container_id)
            self._catalogue.record(container_id, state, day=file.day, first_seq=None)

    def _tick(self) -> None:
        """Seal tails that have waited long enough; close files that are done."""
        self._next_tick_s = time.monotonic() + TICK_S
        today = self._today()
        for day in self._files.open_days():
            try:
                file = self._files.writable(day)
                now_s = time.monotonic()
                if file.is_due(now_s):
                    with file.transaction():
                        file.seal(now_s)
                if day != today and not file.has_tail:
                    self._files.retire(day)
            except (sqlite3.Error, CorruptData) as error:
                self._report(day, self._files.fault(error, day))

    def _report(self, day: date, fault: SlipwayError) -> None:
        if isinstance(fault, CorruptData):
            with suppress(sqlite3.Error, SlipwayError):
                self.set_aside(day, fault.message)
        elif fault.message != self._last_fault:
            self._last_fault = fault.message
            self._on_fault(fault.message)

    def _refuse_the_rest(self) -> None:
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.done.set_running_or_notify_cancel():
                    job.done.set_exception(Unavailable("The log store is closed"))
