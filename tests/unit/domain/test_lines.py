from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.lines import LineAssembler, NewLine, OutputPiece, PendingLine
from app.domain.log import LINE_LIMIT_BYTES, LogStream

OUT, ERR = LogStream.STDOUT, LogStream.STDERR
# Runs of one letter make lines around the limit without megabytes of random bytes.
chunks = st.one_of(
    st.binary(max_size=20),
    st.integers(0, 3 * LINE_LIMIT_BYTES).map(lambda count: b"x" * count),
    st.integers(LINE_LIMIT_BYTES - 2, LINE_LIMIT_BYTES + 2).map(lambda count: b"y" * count),
    st.just(b"\n"),
)
pieces = st.lists(st.tuples(st.sampled_from(LogStream), chunks), max_size=12).map(
    lambda parts: [(time_ns, stream, data) for time_ns, (stream, data) in enumerate(parts, 1)]
)


def joined(lines: Iterable[NewLine]) -> dict[LogStream, bytes]:
    text: dict[LogStream, bytes] = defaultdict(bytes)
    for line in lines:
        text[line.stream] += line.data + (b"" if line.partial else b"\n")
    return text


def written(output: Iterable[OutputPiece]) -> dict[LogStream, bytes]:
    text: dict[LogStream, bytes] = defaultdict(bytes)
    for _, stream, data in output:
        text[stream] += data
    return text


def ended(text: bytes) -> bytes:
    return text + (b"" if not text or text.endswith(b"\n") else b"\n")


@given(pieces)
def test_lines_hold_every_byte_in_order(output: list[OutputPiece]) -> None:
    assembler = LineAssembler()
    lines = [*assembler.feed(output), *assembler.flush()]
    expected = {stream: ended(text) for stream, text in written(output).items() if text}
    assert dict(joined(lines)) == expected
    assert all(len(line.data) <= LINE_LIMIT_BYTES for line in lines)
    assert dict(assembler.pending) == {}


@given(pieces)
def test_pieces_cut_elsewhere_give_the_same_lines(output: list[OutputPiece]) -> None:
    smaller = [
        (time_ns, stream, data[at : at + 7000])
        for time_ns, stream, data in output
        for at in range(0, len(data), 7000)
    ]
    whole, cut = LineAssembler(), LineAssembler()
    assert sorted_lines(whole.feed(output)) == sorted_lines(cut.feed(smaller))
    assert whole.pending == cut.pending


def sorted_lines(lines: list[NewLine]) -> list[NewLine]:
    """By stream: within one piece the order of the two streams is not at stake."""
    return sorted(lines, key=lambda line: line.stream)


@given(pieces, st.integers(0, 12))
def test_assembler_restored_from_pending_goes_on(output: list[OutputPiece], at: int) -> None:
    one, first = LineAssembler(), LineAssembler()
    lines = first.feed(output[:at])
    second = LineAssembler(first.pending)
    assert [*lines, *second.feed(output[at:])] == one.feed(output)
    assert second.pending == one.pending


@given(pieces)
def test_partial_is_followed_by_the_rest_of_its_line(output: list[OutputPiece]) -> None:
    assembler = LineAssembler()
    lines = [*assembler.feed(output), *assembler.flush()]
    for stream in LogStream:
        of_stream = [line for line in lines if line.stream is stream]
        for line, after in zip_longest(of_stream, of_stream[1:]):
            if line.partial:
                assert len(line.data) == LINE_LIMIT_BYTES
                assert after is not None
                assert after.data
                assert after.time_ns == line.time_ns


def test_line_has_the_time_of_its_beginning() -> None:
    assembler = LineAssembler()
    assert assembler.feed([(1, OUT, b"a\nb"), (2, OUT, b"c"), (3, OUT, b"d\ne\n")]) == [
        NewLine(1, OUT, b"a"),
        NewLine(1, OUT, b"bcd"),
        NewLine(3, OUT, b"e"),
    ]


def test_streams_are_kept_apart() -> None:
    assembler = LineAssembler()
    assert assembler.feed([(1, OUT, b"a"), (2, ERR, b"b\n"), (3, OUT, b"c\n")]) == [
        NewLine(2, ERR, b"b"),
        NewLine(1, OUT, b"ac"),
    ]


@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "end of stream"])
def test_line_of_exactly_the_limit_is_whole(end: bytes) -> None:
    assembler = LineAssembler()
    text = b"x" * LINE_LIMIT_BYTES
    lines = [*assembler.feed([(1, OUT, text + end)]), *assembler.flush()]
    assert lines == [NewLine(1, OUT, text)]


def test_line_one_byte_too_long_is_split() -> None:
    assembler = LineAssembler()
    assert assembler.feed([(1, OUT, b"x" * LINE_LIMIT_BYTES + b"y\n")]) == [
        NewLine(1, OUT, b"x" * LINE_LIMIT_BYTES, partial=True),
        NewLine(1, OUT, b"y"),
    ]


def test_empty_lines_and_carriage_returns_are_kept() -> None:
    assembler = LineAssembler()
    assert [line.data for line in assembler.feed([(1, OUT, b"\n\r\n\na")])] == [b"", b"\r", b""]
    assert assembler.pending == {OUT: PendingLine(1, b"a")}


def test_flush_gives_the_older_stream_first() -> None:
    assembler = LineAssembler()
    assembler.feed([(1, ERR, b"e"), (2, OUT, b"o")])
    assert assembler.flush() == [NewLine(1, ERR, b"e"), NewLine(2, OUT, b"o")]
    assert assembler.flush() == []


def test_pending_is_a_copy() -> None:
    assembler = LineAssembler()
    assembler.feed([(1, OUT, b"a")])
    before = assembler.pending
    assembler.feed([(2, OUT, b"b")])
    assert before == {OUT: PendingLine(1, b"a")}
