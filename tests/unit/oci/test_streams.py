"""Sources: hashing, limits, ranges, cancellation."""

import hashlib
import io

import pytest

from app.core.errors import InvalidArgument
from app.oci.streams import CancelToken, FileRange, HashingSource, ImportCancelled


def test_hashing_source_hashes_counts_and_copies() -> None:
    seen: list[int] = []
    copy = io.BytesIO()
    source = HashingSource(
        io.BytesIO(b"abc" * 1000), token=CancelToken(), what="x", tee=copy, on_bytes=seen.append
    )
    source.read(7)
    digest = source.drain()
    assert digest.hex == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert copy.getvalue() == b"abc" * 1000
    assert source.count_bytes == seen[-1] == 3000


def test_hashing_source_refuses_more_than_its_limit() -> None:
    source = HashingSource(
        io.BytesIO(bytes(11)), token=CancelToken(), what="layer 1", limit_bytes=10
    )
    with pytest.raises(InvalidArgument, match="layer 1 expands to more than 10 bytes"):
        source.drain()


def test_hashing_source_stops_when_cancelled() -> None:
    token = CancelToken()
    source = HashingSource(io.BytesIO(bytes(10)), token=token, what="x")
    source.read(1)
    token.cancel()
    with pytest.raises(ImportCancelled):
        source.read(1)


def test_cancel_token_runs_hooks_once_and_late_ones_at_once() -> None:
    calls: list[str] = []
    token = CancelToken()
    token.on_cancel(lambda: calls.append("early"))
    token.cancel()
    token.cancel()
    token.on_cancel(lambda: calls.append("late"))
    assert calls == ["early", "late"]


def test_file_range_reads_only_its_part() -> None:
    part = FileRange(io.BytesIO(b"0123456789"), 2, 5)
    assert part.read(3) == b"234"
    assert part.skip(1) == 1
    assert part.read(100) == b"6"
    assert part.read(1) == b""
    assert part.skip(1) == 0


def test_file_range_of_a_short_file_ends_early() -> None:
    part = FileRange(io.BytesIO(b"0123"), 2, 5)
    assert part.read(100) == b"23"
    assert part.read(100) == b""
