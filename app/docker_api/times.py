"""Times in Docker's form."""

import re
from datetime import UTC, datetime

from app.core.errors import InvalidArgument

ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time: "never"
NS_PER_S = 1_000_000_000
_TIMESTAMP = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9}))?")


def iso_time(time_ns: int | None) -> str:
    """RFC 3339 with nanoseconds, without trailing zeros as Go writes it; None is Go's zero."""
    if time_ns is None:
        return ZERO_TIME
    seconds, fraction = divmod(time_ns, NS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09}".rstrip("0")
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


def log_time(time_ns: int) -> str:
    """The same with all nine digits, as log lines are marked."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction:09}Z"


def parse_time_ns(name: str, text: str) -> int | None:
    """Seconds since the epoch with up to nine digits after the point; empty: not given.

    Raises:
        InvalidArgument: It is something else.
    """
    if not text:
        return None
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'invalid value for "{name}": failed to parse {text!r} as a time')
    fraction = f"{match[2] or '':0<9}"
    return int(match[1]) * NS_PER_S + int(fraction)
