"""What SQLite reports about a log file, in our words."""

import shutil
import sqlite3
from pathlib import Path

from app.core.errors import CorruptData, ResourceExhausted, SlipwayError, Unavailable

# Primary result codes, sqlite.org/rescode.html
_PRIMARY = 0xFF
_BUSY, _LOCKED, _IOERR, _CORRUPT, _FULL, _NOTADB = 5, 6, 10, 11, 13, 26
_LITTLE_SPACE_BYTES = 1024 * 1024


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged."""
    return _code(error) in {_CORRUPT, _NOTADB}


def log_fault(error: sqlite3.Error, path: Path) -> SlipwayError:
    """Say what an error means for the operator; the caller raises it with `from`."""
    code = _code(error)
    if is_corrupt(error):
        return CorruptData(f"Log file {path} is damaged: {error}")
    if code == _FULL or (code == _IOERR and _is_disk_full(path)):
        return ResourceExhausted(
            f"Can't write log file {path}: {error}",
            advice="Free space on the disk of the data directory; containers wait until then.",
        )
    if code in {_BUSY, _LOCKED}:
        return Unavailable(
            f"Log file {path} is locked: {error}",
            advice="Close the other program that has the file open.",
        )
    return Unavailable(
        f"Can't use log file {path}: {error}",
        advice="Check the disk and the owner of the data directory.",
    )


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY


def _is_disk_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LITTLE_SPACE_BYTES
    except OSError:
        return False
