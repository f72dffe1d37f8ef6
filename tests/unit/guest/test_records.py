import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.guest.protocol import MAX_RECORD_BYTES
from app.guest.records import OutputRecord, RecordDecoder, Source, encode_record

pieces = st.tuples(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(Source),
    st.binary(max_size=100) | st.just(b"x" * MAX_RECORD_BYTES),
)


def test_record_layout_is_the_contracts() -> None:
    assert encode_record(5, Source.STDERR, b"no") == struct.pack("<QIB3x", 5, 2, 2) + b"no"


@given(st.lists(pieces), st.integers(1, 10_000), st.integers(0, 1 << 50))
def test_records_round_trip_in_any_split(
    items: list[tuple[int, Source, bytes]], piece_bytes: int, offset: int
) -> None:
    data = b"".join(encode_record(*item) for item in items)
    decoder = RecordDecoder(offset)
    records: list[OutputRecord] = []
    for start in range(0, len(data), piece_bytes):
        records += decoder.feed(data[start : start + piece_bytes])
    assert [(record.time_ns, record.source, record.data) for record in records] == items
    assert decoder.next_offset == offset + len(data)
    assert decoder.is_between_records
    for index, record in enumerate(records):
        end = offset + sum(16 + len(item[2]) for item in items[: index + 1])
        assert record.end_offset == end


def test_unfinished_record_is_held() -> None:
    decoder = RecordDecoder()
    data = encode_record(1, Source.STDOUT, b"hello")
    assert decoder.feed(data[:-1]) == []
    assert not decoder.is_between_records
    assert decoder.next_offset == len(data) - 1
    assert [record.data for record in decoder.feed(data[-1:])] == [b"hello"]


@pytest.mark.parametrize(
    "head",
    [struct.pack("<QIB3x", 0, MAX_RECORD_BYTES + 1, 1), struct.pack("<QIB3x", 0, 1, 3), bytes(16)],
    ids=["too-long", "unknown-source", "zeros"],
)
def test_impossible_record_is_corrupt_and_says_where(head: bytes) -> None:
    decoder = RecordDecoder(1000)
    good = encode_record(1, Source.STDOUT, b"x")
    with pytest.raises(CorruptData, match="1017"):
        decoder.feed(good + head)


@given(st.binary(max_size=200))
def test_decoding_gives_records_or_corrupt_data(data: bytes) -> None:
    decoder = RecordDecoder()
    with contextlib.suppress(CorruptData):
        for record in decoder.feed(data):
            assert data[: record.end_offset].endswith(record.data)


def test_encode_record_refuses_too_much() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        encode_record(0, Source.STDOUT, bytes(MAX_RECORD_BYTES + 1))
