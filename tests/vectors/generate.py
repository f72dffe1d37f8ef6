"""Writes frames.txt, the vectors that hold the engine's and the agent's receivers together.

    python -m tests.vectors.generate [FILE]

Bytes and results are put together by hand here, with their own encoder, so that a fault of a
receiver, or of the product's encoder, can't hide in the expectation.
"""

import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("frames.txt")

HEADER = """\
# Frames for the two receivers of docs/channel.md. Written by tests/vectors/generate.py.
#
# NAME guest-rx|host-rx accept|reject HEXBYTES RESULT
#
# Feed the bytes, in any split, to a fresh receiver that has seen HELLO. It must accept exactly the
# frames of RESULT, `type:flags:stream:offset:payloadhex` joined by commas or `-` for none, and must
# have lost the stream at least once exactly if the word is `reject`. After a loss guest-rx searches
# for the next HELLO and goes on from there; host-rx accepts nothing more.
"""

(HELLO, HELLO_ACK, REQUEST, RESPONSE, EVENT, EVENT_ACK, DATA, ACK, PING, PONG) = range(1, 11)
MORE, EOF = 1, 2
MAX_PAYLOAD = 16360
ZEROS = bytes(16384)


@dataclass(frozen=True)
class Good:
    """A frame as it should be."""

    type: int
    payload: bytes = b""
    flags: int = 0
    stream: int = 0
    offset: int = 0

    def head(self) -> bytes:
        return struct.pack(
            "<IBBHIQ",
            0x31574C53,
            self.type,
            self.flags,
            len(self.payload),
            self.stream,
            self.offset,
        )

    def wire(self) -> bytes:
        head = self.head()
        return head + struct.pack("<I", zlib.crc32(head + self.payload)) + self.payload

    def result(self) -> str:
        return f"{self.type}:{self.flags}:{self.stream}:{self.offset}:{self.payload.hex()}"


@dataclass(frozen=True)
class Vector:
    """One line of the file."""

    name: str
    side: str
    data: bytes
    accepted: tuple[Good, ...] = ()
    is_rejected: bool = False

    def line(self) -> str:
        verdict = "reject" if self.is_rejected else "accept"
        result = ",".join(frame.result() for frame in self.accepted) or "-"
        return f"{self.name} {self.side} {verdict} {self.data.hex()} {result}"


def field(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, 0, len(value)) + value


def number(tag: int, value: int) -> bytes:
    return field(tag, struct.pack("<Q", value))


NONCE = bytes(range(16))
HELLO_FRAME = Good(HELLO, field(1, NONCE) + number(2, 1) + number(3, 1))
HELLO_ACK_FRAME = Good(HELLO_ACK, field(1, NONCE) + number(4, 1) + field(5, b"1.0"))
PING_FRAME = Good(PING, offset=7)
PONG_FRAME = Good(PONG, offset=7)
REQUEST_FRAME = Good(REQUEST, number(12, 4) + field(17, b"c" * 64), offset=0x1234567800000001)
RESPONSE_FRAME = Good(RESPONSE, number(13, 0), offset=0x1234567800000001)
EVENT_FRAME = Good(EVENT, number(15, 1) + field(17, b"c" * 64) + number(21, 137), offset=3)
STDIN_FRAME = Good(DATA, b"ls -l\n", stream=2, offset=100)
OUTPUT_FRAME = Good(DATA, bytes(8) + struct.pack("<IB3x", 3, 1) + b"hi\n", stream=1, offset=4096)
WINDOW = struct.pack("<I", 262144)


def wires(*frames: Good) -> bytes:
    return b"".join(frame.wire() for frame in frames)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def accepted(name: str, side: str, *frames: Good) -> Vector:
    return Vector(name, side, wires(*frames), frames)


def good(side: str, samples: tuple[Good, ...], filler: Good) -> list[Vector]:
    """Whole frames of every type of one direction, alone and together."""
    largest = Good(DATA, bytes(i * 7 & 0xFF for i in range(MAX_PAYLOAD)), stream=9, offset=1 << 40)
    vectors = [
        accepted(f"good-type-{frame.type}-{i}", side, frame) for i, frame in enumerate(samples)
    ]
    vectors += [
        accepted("all-in-a-row", side, *samples),
        accepted("duplicated", side, filler, filler),
        accepted("data-largest", side, largest, filler),
        accepted("data-empty-eof", side, Good(DATA, flags=EOF, stream=1, offset=99)),
        accepted("data-eof", side, Good(DATA, b"end", flags=EOF, stream=1, offset=99)),
        accepted("data-beyond-any-window", side, Good(DATA, b"far", stream=1, offset=1 << 62)),
        accepted(
            "data-top-of-range", side, Good(DATA, b"x", stream=(1 << 32) - 1, offset=(1 << 64) - 1)
        ),
        accepted("ack-window-0", side, Good(ACK, bytes(4), stream=1, offset=5)),
        accepted("ack-eof", side, Good(ACK, WINDOW, flags=EOF, stream=1, offset=4099)),
        accepted("magic-in-payload", side, Good(DATA, b"SLW1" * 20, stream=1, offset=0), filler),
        accepted("frame-in-payload", side, Good(DATA, HELLO_FRAME.wire(), stream=1), filler),
    ]
    return vectors


def torn(side: str, frame: Good) -> list[Vector]:
    """A frame that has not arrived whole is no loss yet."""
    data = frame.wire()
    cuts = (1, 3, 4, 8, 19, 20, 23, 24, len(data) - 1)
    return [Vector(f"torn-at-{cut}", side, data[:cut]) for cut in cuts] + [
        Vector("torn-after-good", side, data + data[:30], (frame,))
    ]


def broken_frames(frame: Good) -> list[tuple[str, bytes]]:
    """Everything that makes a receiver lose the stream, with bytes enough to see it."""
    data = frame.wire()
    head = frame.head()
    tail = bytes(24)

    def resealed(changed_head: bytes) -> bytes:
        crc = struct.pack("<I", zlib.crc32(changed_head + frame.payload))
        return changed_head + crc + frame.payload + tail

    def resized(length: int) -> bytes:
        return head[:6] + struct.pack("<H", length) + head[8:]

    return [
        ("magic-wrong", flip(data, 0) + tail),
        ("magic-last-byte-wrong", flip(data, 3) + tail),
        ("zeros", bytes(64)),
        ("text", b"panic: not a frame at all, but forty bytes of it"),
        ("type-0", resealed(head[:4] + b"\x00" + head[5:])),
        ("type-11", resealed(head[:4] + b"\x0b" + head[5:])),
        ("type-255", resealed(head[:4] + b"\xff" + head[5:])),
        ("length-16361", resealed(resized(16361))),
        ("length-65535", resealed(resized(65535))),
        ("crc-of-type", flip(data, 4) + tail),
        ("crc-of-flags", flip(data, 5) + tail),
        ("crc-of-stream", flip(data, 8) + tail),
        ("crc-of-offset", flip(data, 12) + tail),
        ("crc-itself", flip(data, 20) + tail),
        ("crc-of-payload", flip(data, 24) + tail),
        ("crc-of-last-byte", flip(data, len(data) - 1) + tail),
        ("crc-of-header-only", head + struct.pack("<I", zlib.crc32(head)) + frame.payload + tail),
        ("byte-missing", data[:26] + data[27:] + tail),
        ("byte-doubled", data[:26] + data[25:] + tail),
    ]


def rejected_by_host() -> list[Vector]:
    """A broken frame ends the connection: what came before counts, what follows does not."""
    vectors = []
    for name, data in broken_frames(OUTPUT_FRAME):
        vectors.append(Vector(f"{name}", "host-rx", data, (), is_rejected=True))
        vectors.append(
            Vector(
                f"good-{name}-good",
                "host-rx",
                PONG_FRAME.wire() + data + wires(PONG_FRAME, HELLO_ACK_FRAME),
                (PONG_FRAME,),
                is_rejected=True,
            )
        )
    return vectors


def rejected_by_guest() -> list[Vector]:
    """After a broken frame the agent ignores all but HELLO, and from there goes on."""
    vectors = []
    for name, data in broken_frames(STDIN_FRAME):
        vectors += [
            Vector(f"{name}", "guest-rx", data, (), is_rejected=True),
            Vector(
                f"good-{name}-ignored",
                "guest-rx",
                PING_FRAME.wire() + data + wires(PING_FRAME, REQUEST_FRAME),
                (PING_FRAME,),
                is_rejected=True,
            ),
            Vector(
                f"{name}-ignored-hello-good",
                "guest-rx",
                data + wires(PING_FRAME, HELLO_FRAME, REQUEST_FRAME),
                (HELLO_FRAME, REQUEST_FRAME),
                is_rejected=True,
            ),
        ]
    return vectors


def resynchronised() -> list[Vector]:
    """What a new host sends, after everything that its predecessor may have left."""
    opening = ZEROS + HELLO_FRAME.wire()
    largest = Good(DATA, b"S" * MAX_PAYLOAD, stream=2, offset=0)
    leftovers = [("nothing", b"")]
    leftovers += [(f"stdin-{cut}", STDIN_FRAME.wire()[:cut]) for cut in (1, 8, 23, 24, 29)]
    leftovers += [(f"largest-{cut}", largest.wire()[:cut]) for cut in (24, 16383)]
    leftovers += [
        ("garbage", b"no frame" * 9),
        ("magics", b"SLW1" * 9),
        ("half-magic", b"SLWSLW1SL"),
    ]
    vectors = [
        Vector(
            f"zeros-hello-after-{name}",
            "guest-rx",
            data + opening + PING_FRAME.wire(),
            (HELLO_FRAME, PING_FRAME),
            is_rejected=True,
        )
        for name, data in leftovers
    ]
    liar = Good(DATA, bytes(200), stream=2, offset=0).wire()[:24]
    inside = flip(Good(DATA, b"x" + HELLO_FRAME.wire(), stream=2).wire(), 24)
    torn_hello = ZEROS + HELLO_FRAME.wire()[:40]
    again = (HELLO_FRAME, PING_FRAME)
    vectors += [
        accepted("hello-in-step", "guest-rx", PING_FRAME, HELLO_FRAME, PING_FRAME),
        Vector("hello-without-zeros", "guest-rx", b"junk" * 10 + wires(*again), again, True),
        Vector(
            "hello-within-a-false-frame",
            "guest-rx",
            liar + wires(*again) + bytes(400),
            (HELLO_FRAME, PING_FRAME),
            True,
        ),
        Vector(
            "hello-within-a-broken-payload", "guest-rx", inside + wires(PING_FRAME), again, True
        ),
        Vector(
            "hello-torn-then-again",
            "guest-rx",
            torn_hello + opening + PING_FRAME.wire(),
            again,
            True,
        ),
        Vector(
            "hello-twice-after-loss",
            "guest-rx",
            opening + opening,
            (HELLO_FRAME, HELLO_FRAME),
            True,
        ),
        Vector(
            "hello-broken-then-again",
            "guest-rx",
            ZEROS + flip(HELLO_FRAME.wire(), 30) + opening,
            (HELLO_FRAME,),
            True,
        ),
    ]
    return vectors


def fragments() -> list[Vector]:
    """Fragments are frames; frames of other types may stand between them."""
    first = Good(REQUEST, b"a" * MAX_PAYLOAD, flags=MORE, offset=5)
    last = Good(REQUEST, b"b" * 100, offset=5)
    answer_first = Good(RESPONSE, b"a" * MAX_PAYLOAD, flags=MORE, offset=5)
    answer_last = Good(RESPONSE, b"b" * 100, offset=5)
    return [
        accepted("fragments", "guest-rx", first, last),
        accepted("fragments-apart", "guest-rx", first, PING_FRAME, STDIN_FRAME, last),
        accepted("fragments-cut-by-hello", "guest-rx", first, HELLO_FRAME, REQUEST_FRAME),
        accepted("fragments", "host-rx", answer_first, answer_last),
        accepted("fragments-apart", "host-rx", answer_first, PONG_FRAME, OUTPUT_FRAME, answer_last),
    ]


def vectors() -> list[Vector]:
    guest_samples = (
        HELLO_FRAME,
        REQUEST_FRAME,
        Good(EVENT_ACK, offset=3),
        STDIN_FRAME,
        Good(ACK, WINDOW, stream=1, offset=4096),
        PING_FRAME,
    )
    host_samples = (
        HELLO_ACK_FRAME,
        RESPONSE_FRAME,
        EVENT_FRAME,
        OUTPUT_FRAME,
        Good(ACK, WINDOW, stream=2, offset=106),
        PONG_FRAME,
    )
    return [
        *good("guest-rx", guest_samples, PING_FRAME),
        *good("host-rx", host_samples, PONG_FRAME),
        *fragments(),
        *torn("guest-rx", REQUEST_FRAME),
        *torn("host-rx", OUTPUT_FRAME),
        *rejected_by_guest(),
        *rejected_by_host(),
        *resynchronised(),
    ]


def render() -> str:
    return HEADER + "".join(vector.line() + "\n" for vector in vectors())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(render(), encoding="ascii")
