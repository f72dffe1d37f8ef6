"""Backup and restore of the data directory, as one tar file.

Databases go through SQLite's backup API, so that the engine may go on running; everything else is
immutable once written (layers, blobs) or belongs to a container that does not run. Disks of
containers that run can't be copied consistently from outside: the caller names them, and they are
either refused or left out. The file begins with `backup.json`, which says what made it.

Blocking: call it in a thread. GNU tar does the copying, since it keeps holes in sparse disks.
"""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from app.core.errors import Conflict, CorruptData, InvalidArgument, ResourceExhausted, Unsupported
from app.storage.data_directory import LOCK_NAME

FORMAT = 1
LABEL = "backup.json"
LABEL_LIMIT_BYTES = 64 * 1024
SQLITE_MAGIC = b"SQLite format 3\0"
SQLITE_SIDE_FILES = ("-wal", "-shm", "-journal")
COPIED_FIRST = "index.json"  # names blobs: must not name one that comes after our list was made
TAR_TIMEOUT_S = 6 * 3600


@dataclass(frozen=True)
class BackupScope:
    """What of a data directory is saved.

    Attributes:
        excluded: Paths in it that are never saved: run directories, caches, imports under way.
        disks_in_use: Path of a disk (relative to the data directory) -> name of the container that
            runs on it.
    """

    data_dir: Path
    excluded: frozenset[str]
    disks_in_use: Mapping[str, str]


@dataclass(frozen=True)
class BackupLabel:
    """What `backup.json` says.

    Attributes:
        left_out: Containers whose disk is not in the backup, since they ran.
    """

    slipway_version: str
    created_at: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Contents:
    databases: list[Path]
    copied_first: list[Path]
    others: list[Path]


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def _walk(scope: BackupScope) -> Iterator[Path]:
    """Files and directories to save, parents first; sockets, links and the rest are no data."""
    pending = [scope.data_dir]
    while pending:
        for entry in sorted(os.scandir(pending.pop()), key=lambda found: found.name):
            path = Path(entry.path)
            relative = path.relative_to(scope.data_dir)
            if relative.as_posix() in {*scope.excluded, LOCK_NAME}:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
                yield relative
            elif entry.is_file(follow_symlinks=False):
                yield relative


def _sort_contents(scope: BackupScope) -> _Contents:
    contents = _Contents([], [], [])
    for relative in _walk(scope):
        path = scope.data_dir / relative
        if path.name.endswith(SQLITE_SIDE_FILES):
            continue
        if path.is_dir():
            contents.others.append(relative)
        elif path.name == COPIED_FIRST:
            contents.copied_first.append(relative)
        elif _is_database(path):
            contents.databases.append(relative)
        elif relative.as_posix() not in scope.disks_in_use:
            contents.others.append(relative)
    return contents


def _copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    uri = f"{source.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)


def _run_tar(arguments: Sequence[str], *, what: str, advice: str) -> None:
    try:
        done = subprocess.run(
            ["tar", *arguments],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TAR_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ResourceExhausted(f"{what} failed: {exc}", advice=advice) from exc
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["tar gave no reason"]
        if any("No space left" in line for line in lines):
            raise ResourceExhausted(f"{what} failed: the disk is full.", advice="Free disk space.")
        raise Conflict(f"{what} failed: {lines[0]}", advice=advice)


def create_backup(
    scope: BackupScope, target: Path, *, slipway_version: str, leave_out_running: bool
) -> BackupLabel:
    """Write a backup to `target` (mode 0600); after a failure nothing is left of it.

    Raises:
        InvalidArgument: `target` lies in the data directory, or its directory does not exist.
        Conflict: `target` exists; containers run and `leave_out_running` is false; or something
            was removed while it was being copied.
        ResourceExhausted: No room for the backup.
    """
    _check_target(scope, target)
    running = sorted(set(scope.disks_in_use.values()))
    if running and not leave_out_running:
        raise Conflict(
            f"Containers are running, and their disks can't be copied: {', '.join(running)}.",
            advice="Stop them first (slipway stop --all), or give --leave-out-running to save all "
            "but the disks of these containers.",
        )
    label = BackupLabel(
        slipway_version, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), tuple(running)
    )
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write(scope, staging, label)
        (staging / "archive").rename(target)
    except sqlite3.Error as exc:
        raise CorruptData(
            f"A database in {scope.data_dir} can't be read: {exc}",
            advice="Run slipway doctor; restore an older backup if the file is damaged.",
        ) from exc
    except OSError as exc:
        raise ResourceExhausted(
            f"The backup {target} can't be written: {exc.strerror} ({exc.filename}).",
            advice="Free disk space or choose another directory.",
        ) from exc
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return label


def _check_target(scope: BackupScope, target: Path) -> None:
    if not scope.data_dir.is_dir():
        raise InvalidArgument(
            f"There is no data directory {scope.data_dir}.", advice="Set SLIPWAY_DATA_DIR to it."
        )
    if not target.parent.is_dir():
        raise InvalidArgument(f"There is no directory {target.parent} for the backup.")
    if target.resolve().is_relative_to(scope.data_dir.resolve()):
        raise InvalidArgument(
            f"The backup {target} would lie in the data directory itself.",
            advice="Choose a place outside of it, best on another disk.",
        )
    if target.exists():
        raise Conflict(f"{target} exists.", advice="Choose another name or remove it first.")


def _write(scope: BackupScope, staging: Path, label: BackupLabel) -> None:
    """Collect everything in `staging`; the finished tar is `staging/archive`."""
    snapshots = staging / "snapshots"
    snapshots.mkdir()
    contents = _sort_contents(scope)
    for relative in contents.databases:
        _copy_database(scope.data_dir / relative, snapshots / relative)
    for relative in contents.copied_first:
        (snapshots / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(scope.data_dir / relative, snapshots / relative)
    (snapshots / LABEL).write_text(
        json.dumps(
            {
                "format": FORMAT,
                "slipway_version": label.slipway_version,
                "created_at": label.created_at,
                "left_out": label.left_out,
            }
        ),
        encoding="utf-8",
    )
    names = [LABEL, *(path.as_posix() for path in (*contents.databases, *contents.copied_first))]
    archive = staging / "archive"
    archive.touch(mode=0o600)
    _append(archive, snapshots, names)
    # Listed again after the snapshots, so that all that they refer to is in the list.
    _append(archive, scope.data_dir, [path.as_posix() for path in _sort_contents(scope).others])
    with archive.open("rb") as file:
        os.fsync(file.fileno())


def _append(archive: Path, directory: Path, names: list[str]) -> None:
    listing = archive.with_name("names")
    listing.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
    mode = "--append" if archive.stat().st_size else "--create"
    _run_tar(
        [
            *(mode, "--sparse", "--format=gnu", f"--file={archive}", f"--directory={directory}"),
            *("--no-recursion", "--null", "--verbatim-files-from", f"--files-from={listing}"),
        ],
        what="Writing the backup",
        advice="Something changed while it was copied (an import, a removal): run it again.",
    )


def read_label(source: Path) -> BackupLabel:
    """What a backup says of itself, after every name in it was checked.

    Raises:
        InvalidArgument: There is no such file.
        CorruptData: It is no backup, is cut short, or holds anything but plain files.
        Unsupported: A newer release wrote it in a form that this one does not know.
    """
    advice = "Choose a file that `slipway backup` wrote."
    try:
        with tarfile.open(source, "r:") as archive:
            first = archive.next()
            if first is None or first.name != LABEL or first.size > LABEL_LIMIT_BYTES:
                raise CorruptData(f"{source} is not a backup of Slipway.", advice=advice)
            file = archive.extractfile(first)
            content = json.loads(file.read()) if file is not None else None
            for member in archive:
                _check_member(source, member)
    except FileNotFoundError as exc:
        raise InvalidArgument(f"There is no file {source}.") from exc
    except (tarfile.TarError, ValueError, OSError, EOFError) as exc:
        raise CorruptData(f"{source} can't be read as a backup: {exc}", advice=advice) from exc
    return _parse_label(source, content)


def _check_member(source: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    is_plain = member.isdir() or (member.isfile() and not member.islnk())
    if not is_plain or path.is_absolute() or ".." in path.parts:
        raise CorruptData(
            f"{source} holds {member.name!r}, which no backup contains.",
            advice="Don't use this file: it was made or changed by something else.",
        )


def _parse_label(source: Path, content: object) -> BackupLabel:
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CorruptData(f"{source} is not a backup of Slipway.")
    if content["format"] != FORMAT:
        raise Unsupported(
            f"{source} was written by Slipway {content.get('slipway_version')} in a newer form.",
            advice="Restore it with that release or a newer one.",
        )
    return BackupLabel(
        slipway_version=str(content.get("slipway_version", "")),
        created_at=str(content.get("created_at", "")),
        left_out=tuple(str(name) for name in content.get("left_out", ())),
    )


def restore_backup(source: Path, data_dir: Path) -> BackupLabel:
    """Make `data_dir` from a backup; it must not exist or be empty.

    Everything is unpacked and checked beside it first, so that after a failure `data_dir` is as it
    was.

    Raises:
        Conflict: `data_dir` is not empty.
        ResourceExhausted: No room.
        InvalidArgument, CorruptData, Unsupported: As `read_label`; a database in it is damaged.
    """
    label = read_label(source)
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise Conflict(
            f"{data_dir} is not empty.",
            advice="Restore into a new directory (SLIPWAY_DATA_DIR), or remove this one first.",
        )
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{data_dir.name}.", dir=data_dir.parent))
    try:
        _run_tar(
            [
                *("--extract", "--sparse", "--same-permissions", f"--file={source.resolve()}"),
                f"--directory={staging}",
            ],
            what=f"Unpacking {source}",
            advice="Check the file and the permissions of the directory.",
        )
        (staging / LABEL).unlink()
        _check_databases(staging)
        staging.chmod(stat.S_IRWXU)
        if data_dir.exists():
            data_dir.rmdir()
        staging.rename(data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return label


def _check_databases(directory: Path) -> None:
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file() or not _is_database(path):
            continue
        try:
            with closing(sqlite3.connect(path)) as connection:
                answer = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as exc:
            answer = str(exc)
        if answer != "ok":
            raise CorruptData(
                f"The database {path.relative_to(directory)} in the backup is damaged: {answer}",
                advice="Use another backup.",
            )
