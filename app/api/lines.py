"""Streams of JSON lines."""

from pydantic import BaseModel

NDJSON = "application/x-ndjson"


def ndjson(value: BaseModel) -> bytes:
    """One line."""
    return value.model_dump_json(exclude_none=True).encode() + b"\n"
