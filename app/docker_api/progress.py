"""Progress as JSON lines, in the form that the docker CLI draws (moby, pkg/jsonmessage)."""

import json
from typing import Any

WIDTH = 50
_UNITS = ("B", "kB", "MB", "GB", "TB")


def line(**fields: Any) -> bytes:  # noqa: ANN401  (whatever JSON holds)
    """One line; Docker ends them so."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\r\n"


def error_line(text: str) -> bytes:
    """An error after the status 200 has gone out."""
    return line(errorDetail={"message": text}, error=text)


def step(status: str, subject: str, done_bytes: int, total_bytes: int | None) -> bytes:
    """How far one layer is."""
    detail = {"current": done_bytes} | ({"total": total_bytes} if total_bytes else {})
    return line(
        status=status, progressDetail=detail, progress=bar(done_bytes, total_bytes), id=subject
    )


def bar(done_bytes: int, total_bytes: int | None) -> str:
    """`[====>      ]  1.2MB/3.4MB`, for clients that don't draw themselves."""
    if not total_bytes:
        return human_size(done_bytes)
    filled = min(WIDTH * done_bytes // total_bytes, WIDTH)
    head = "=" * filled + (">" if filled < WIDTH else "")
    return f"[{head:<{WIDTH}}]  {human_size(done_bytes)}/{human_size(total_bytes)}"


def human_size(size_bytes: int) -> str:
    """Four digits at most, by thousands (go-units HumanSizeWithPrecision)."""
    value, place = float(size_bytes), 0
    while value >= 1000 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.4g}{_UNITS[place]}"
