"""Leaving a terminal by keys."""

import pytest

from app.core.errors import InvalidArgument
from app.docker_api.detach_keys import DEFAULT_KEYS, DetachScanner, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", DEFAULT_KEYS),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-A,b,ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x01b\x00\x1b\x1c\x1d\x1e\x1f"),
    ],
)
def test_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "ab", "a,,b", "ctrl-1", "é"])
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid detach keys"):
        parse_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "is_leaving"),
    [
        ([b"plain"], b"plain", False),
        ([b"one\x10\x11two"], b"one", True),
        ([b"one\x10", b"\x11"], b"one", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
        ([b"\x10\x10x"], b"\x10\x10x", False),
    ],
)
def test_what_goes_on_to_the_process(typed: list[bytes], passed: bytes, is_leaving: bool) -> None:
    scanner = DetachScanner(DEFAULT_KEYS)
    results = [scanner.feed(data) for data in typed]
    assert b"".join(data for data, _ in results) == passed
    assert results[-1][1] is is_leaving
