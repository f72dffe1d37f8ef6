"""What a statement did."""

from typing import Any

from sqlalchemy import CursorResult, Result


def affected_rows(result: Result[Any]) -> int:
    """How many rows an UPDATE or DELETE matched."""
    if not isinstance(result, CursorResult):
        raise TypeError("Only a statement that changes rows has a count of them")
    return int(result.rowcount)
