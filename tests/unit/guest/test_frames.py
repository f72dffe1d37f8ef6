import struct
import zlib
from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData
from app.guest.frames import (
    Frame,
    FrameParser,
    MessageAssembler,
    ResyncingFrameParser,
    encode_frame,
    encode_message,
    encode_resync,
)
from app.guest.protocol import (
    FLAG_EOF,
    FLAG_MORE,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    RESYNC_ZERO_BYTES,
    FrameType,
    Tag,
)
from tests.vectors import generate


@dataclass(frozen=True)
class Vector:
    name: str
    side: str
    is_rejected: bool
    data: bytes
    result: str


@cache
def read_vectors() -> tuple[Vector, ...]:
    found = []
    for line in generate.FILE.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            name, side, verdict, data, result = line.split(" ")
            found.append(Vector(name, side, verdict == "reject", bytes.fromhex(data), result))
    return tuple(found)


def show(frames: list[Frame]) -> str:
    return (
        ",".join(f"{f.type:d}:{f.flags}:{f.stream}:{f.offset}:{f.payload.hex()}" for f in frames)
        or "-"
    )


def receive(side: str, data: bytes, piece_bytes: int) -> tuple[list[Frame], bool]:
    """Feed in pieces; return what was accepted and whether the stream was lost."""
    frames: list[Frame] = []
    guest = ResyncingFrameParser() if side == "guest-rx" else None
    parser = guest or FrameParser()
    for start in range(0, len(data), piece_bytes):
        parser.feed(data[start : start + piece_bytes])
        try:
            while (frame := parser.next_frame()) is not None:
                frames.append(frame)
        except CorruptData:
            return frames, True
    return frames, guest is not None and guest.lost_count > 0


def test_vectors_regenerate_identically() -> None:
    assert generate.FILE.read_text(encoding="ascii") == generate.render()


def test_vectors_have_unique_names() -> None:
    names = [(vector.side, vector.name) for vector in read_vectors()]
    assert len(names) == len(set(names)) > 150


@pytest.mark.parametrize("piece_bytes", [1 << 20, 4096, 13, 1], ids=lambda size: f"pieces-{size}")
@pytest.mark.parametrize("side", ["guest-rx", "host-rx"])
def test_parser_vectors(side: str, piece_bytes: int) -> None:
    for vector in read_vectors():
        if vector.side == side:
            frames, is_lost = receive(side, vector.data, piece_bytes)
            assert (show(frames), is_lost) == (vector.result, vector.is_rejected), vector.name


frame_values = st.builds(
    Frame,
    st.sampled_from(FrameType),
    st.integers(0, 255),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 64) - 1),
    st.binary(max_size=300) | st.just(bytes(MAX_PAYLOAD_BYTES)),
)


def encode(frame: Frame) -> bytes:
    return encode_frame(
        frame.type, frame.payload, flags=frame.flags, stream=frame.stream, offset=frame.offset
    )


@given(st.lists(frame_values, max_size=5), st.integers(1, 5000))
def test_frames_round_trip_in_any_split(frames: list[Frame], piece_bytes: int) -> None:
    data = b"".join(encode(frame) for frame in frames)
    assert receive("host-rx", data, piece_bytes) == (frames, False)
    assert receive("guest-rx", data, piece_bytes) == (frames, False)


@given(frame_values)
def test_frame_layout_is_the_contracts(frame: Frame) -> None:
    data = encode(frame)
    magic, number, flags, length, stream, offset, crc = struct.unpack_from("<4sBBHIQI", data)
    assert (magic, number, flags, length) == (b"SLW1", frame.type, frame.flags, len(frame.payload))
    assert (stream, offset) == (frame.stream, frame.offset)
    assert crc == zlib.crc32(data[:20] + data[24:])


@given(st.binary(max_size=500), st.integers(1, 100))
def test_guest_parser_finds_hello_after_any_garbage(garbage: bytes, piece_bytes: int) -> None:
    hello = encode_frame(FrameType.HELLO, b"hello")
    frames, _ = receive("guest-rx", garbage + bytes(RESYNC_ZERO_BYTES) + hello, piece_bytes)
    assert frames[-1] == Frame(FrameType.HELLO, 0, 0, 0, b"hello")


@given(st.binary(max_size=500))
def test_host_parser_never_fails_otherwise(data: bytes) -> None:
    frames, _ = receive("host-rx", data, 100)
    assert (
        b"".join(encode(frame) for frame in frames)
        == data[: sum(24 + len(f.payload) for f in frames)]
    )


@given(frame_values.filter(lambda frame: len(frame.payload) < 400), st.data())
def test_one_flipped_bit_is_never_accepted(frame: Frame, data: st.DataObject) -> None:
    wire = bytearray(encode(frame))
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    frames, _ = receive("host-rx", bytes(wire), 1 << 20)
    assert frames == []


def test_host_parser_stays_lost() -> None:
    parser = FrameParser()
    parser.feed(b"x" * 24)
    for _ in range(2):
        with pytest.raises(CorruptData):
            parser.next_frame()
        parser.feed(encode_frame(FrameType.PONG))


def test_encode_frame_refuses_a_long_payload() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_frame(FrameType.DATA, bytes(MAX_PAYLOAD_BYTES + 1))


def test_largest_frame_has_the_stated_size() -> None:
    assert len(encode_frame(FrameType.DATA, bytes(MAX_PAYLOAD_BYTES))) == MAX_FRAME_BYTES


def test_resync_begins_with_a_whole_frame_of_zeros() -> None:
    data = encode_resync(b"hi")
    assert data[:RESYNC_ZERO_BYTES] == bytes(MAX_FRAME_BYTES)
    assert data[RESYNC_ZERO_BYTES:] == encode_frame(FrameType.HELLO, b"hi")


class TestSeekHelloAck:
    nonce = bytes(range(16))

    def ack(self, nonce: bytes | None = None) -> bytes:
        field = struct.pack("<HHI", Tag.NONCE, 0, 16) + (nonce or self.nonce)
        return encode_frame(FrameType.HELLO_ACK, field + b"more")

    @given(st.binary(max_size=200), st.integers(1, 100))
    def test_seek_skips_anything_before(self, garbage: bytes, piece_bytes: int) -> None:
        parser = FrameParser()
        data = garbage + self.ack() + encode_frame(FrameType.PONG)
        is_found = False
        for start in range(0, len(data), piece_bytes):
            parser.feed(data[start : start + piece_bytes])
            is_found = is_found or parser.seek_hello_ack(self.nonce)
        assert is_found
        frame = parser.next_frame()
        assert frame is not None
        assert (frame.type, frame.payload[8:24]) == (FrameType.HELLO_ACK, self.nonce)
        assert parser.next_frame() == Frame(FrameType.PONG, 0, 0, 0, b"")

    def test_seek_ignores_another_nonce(self) -> None:
        parser = FrameParser()
        parser.feed(self.ack(bytes(16)) * 1000)
        assert not parser.seek_hello_ack(self.nonce)

    def test_seek_keeps_little_of_what_it_skips(self) -> None:
        parser = FrameParser()
        for _ in range(100):
            parser.feed(bytes(100_000))
            assert not parser.seek_hello_ack(self.nonce)
        assert len(parser._buffer) < 500_000

    def test_seek_survives_a_guest_that_repeats_the_nonce(self) -> None:
        field = struct.pack("<HHI", Tag.NONCE, 0, 16) + self.nonce
        parser = FrameParser()
        parser.feed(field * 5000)
        assert parser.seek_hello_ack(self.nonce)
        with pytest.raises(CorruptData):
            parser.next_frame()


class TestMessageAssembler:
    @given(st.binary(max_size=3 * MAX_PAYLOAD_BYTES + 5))
    def test_message_round_trip(self, payload: bytes) -> None:
        assembler = MessageAssembler()
        parser = FrameParser()
        parser.feed(b"".join(encode_message(FrameType.REQUEST, payload, offset=9)))
        results = []
        while (frame := parser.next_frame()) is not None:
            assert frame.offset == 9
            results.append(assembler.add(frame))
        assert results == [None] * (len(results) - 1) + [payload]

    def test_other_types_may_stand_between(self) -> None:
        assembler = MessageAssembler()
        assert assembler.add(Frame(FrameType.RESPONSE, FLAG_MORE, 0, 1, b"a")) is None
        assert assembler.add(Frame(FrameType.EVENT, FLAG_MORE, 0, 8, b"x")) is None
        assert assembler.add(Frame(FrameType.RESPONSE, 0, 0, 1, b"b")) == b"ab"
        assert assembler.add(Frame(FrameType.EVENT, FLAG_EOF, 0, 8, b"y")) == b"xy"

    def test_another_message_of_the_type_may_not(self) -> None:
        assembler = MessageAssembler()
        assembler.add(Frame(FrameType.RESPONSE, FLAG_MORE, 0, 1, b"a"))
        with pytest.raises(CorruptData, match="mix"):
            assembler.add(Frame(FrameType.RESPONSE, 0, 0, 2, b"b"))

    def test_endless_message_is_refused(self) -> None:
        assembler = MessageAssembler(max_message_bytes=100)
        assembler.add(Frame(FrameType.RESPONSE, FLAG_MORE, 0, 1, bytes(60)))
        with pytest.raises(CorruptData, match="too long"):
            assembler.add(Frame(FrameType.RESPONSE, FLAG_MORE, 0, 1, bytes(60)))
