from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.domain.lines import NewLine, PendingLine
from app.domain.log import LogLine, LogStream
from app.logs.blocks import (
    block_text,
    compress_block,
    decode_block,
    decode_pending,
    decompress_block,
    encode_block,
    encode_pending,
    number_lines,
)

lines = st.lists(
    st.builds(
        NewLine,
        st.integers(0, 2**64 - 1),
        st.sampled_from(LogStream),
        st.binary(max_size=60),
        st.booleans(),
    ),
    max_size=20,
)


@given(lines)
def test_block_round_trip(written: list[NewLine]) -> None:
    assert decode_block(decompress_block(compress_block(encode_block(written)))) == written


@given(
    st.dictionaries(
        st.sampled_from(LogStream), st.builds(PendingLine, st.integers(0, 9), st.binary())
    )
)
def test_pending_round_trip(pending: dict[LogStream, PendingLine]) -> None:
    assert decode_pending(encode_pending(pending)) == pending


@given(lines, st.data())
def test_cut_block_is_corrupt(written: list[NewLine], data: st.DataObject) -> None:
    block = encode_block(written)
    at = data.draw(st.integers(0, len(block) - 1))
    with pytest.raises(CorruptData):
        decode_block(block[:at])


@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_corrupt(block: bytes) -> None:
    for decode in (decode_block, decompress_block):
        with suppress(CorruptData):
            decode(block)


def test_block_of_another_version_is_named() -> None:
    with pytest.raises(CorruptData, match="version 2"):
        decode_block(b"\2" + encode_block([])[1:])


def test_lines_are_numbered_from_the_first() -> None:
    line = NewLine(5, LogStream.STDERR, b"x", partial=True)
    assert number_lines([line, line], 7) == [
        LogLine(7, 5, LogStream.STDERR, b"x", True),
        LogLine(8, 5, LogStream.STDERR, b"x", True),
    ]


def test_text_of_any_bytes() -> None:
    written = [NewLine(1, LogStream.STDOUT, data) for data in (b"\xff\xfe", b"a\0b", b"")]
    assert block_text(written) == "\ufffd\ufffd\na b\n"
