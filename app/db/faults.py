"""What the database library reports, in our words."""

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import CorruptData, ResourceExhausted, SlipwayError, Unavailable


def database_fault(error: SQLAlchemyError | sqlite3.Error, database: str) -> SlipwayError:
    """Say what a library error means for the operator; the caller raises it with `from`."""
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    lowered = reason.lower()
    if isinstance(error, PoolTimeoutError) or "locked" in lowered or "busy" in lowered:
        return Unavailable(
            f"Database {database} is busy: {reason}",
            advice="Try again; look for another program that holds the file open.",
        )
    if "disk is full" in lowered or "disk i/o error" in lowered:
        return ResourceExhausted(
            f"Can't write database {database}: {reason}",
            advice="Free space on the disk of the data directory.",
        )
    if "malformed" in lowered or "not a database" in lowered:
        return CorruptData(
            f"Database {database} is damaged: {reason}",
            advice="Stop Slipway and restore the data directory from a backup.",
        )
    if "unable to open" in lowered or "readonly" in lowered:
        return Unavailable(
            f"Can't open database {database}: {reason}",
            advice="Check that the data directory exists and belongs to the user Slipway runs as.",
        )
    return SlipwayError(f"Database {database}: {reason}")
