"""Maps of sparse tar entries: GNU's own format and its three PAX variants.

Source: GNU tar manual, "Storing Sparse Files".
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from app.core.errors import CorruptData

SPARSE_KEYS = b"GNU.sparse."
SEGMENTS_MAX = 200_000
_SIZE_MAX = 2**63 - 1


@dataclass(slots=True)
class SparseMap:
    """Where the stored bytes of a sparse file belong.

    Attributes:
        segments: (offset, length) pairs, ascending after `validate()`.
        real_bytes: Size of the file with its holes.
        name: The real name where the header's own is a stand-in (formats 0.1 and 1.0), or empty.
    """

    segments: list[tuple[int, int]] = field(default_factory=list)
    real_bytes: int = 0
    name: bytes = b""

    def add(self, offset: int, length: int, *, what: str) -> None:
        """Append a segment.

        Raises:
            CorruptData: Too many segments.
        """
        if len(self.segments) >= SEGMENTS_MAX:
            raise CorruptData(f"{what} has more than {SEGMENTS_MAX:,} sparse segments")
        self.segments.append((offset, length))

    def validate(self, stored_bytes: int, *, what: str) -> None:
        """Check that segments ascend, fit the file and account for the stored bytes.

        Raises:
            CorruptData: They don't.
        """
        position = total = 0
        for offset, length in self.segments:
            if offset < position or length < 0 or offset + length > self.real_bytes:
                raise CorruptData(f"{what} has a sparse map that overlaps or leaves the file")
            position = offset + length
            total += length
        if total != stored_bytes or self.real_bytes > _SIZE_MAX:
            raise CorruptData(f"{what} has a sparse map that doesn't match its size")


def parse_gnu_sparse(header: bytes, next_block: Callable[[], bytes], *, what: str) -> SparseMap:
    """Read the map of a type `S` entry: four slots in the header, 21 in each block after it."""
    sparse = SparseMap(real_bytes=_octal(header[483:495], what))
    block, offset, slots, more_at = header, 386, 4, 482
    while True:
        for index in range(slots):
            slot = block[offset + 24 * index : offset + 24 * (index + 1)]
            if slot[0] == 0:
                break
            sparse.add(_octal(slot[:12], what), _octal(slot[12:], what), what=what)
        if not block[more_at]:
            return sparse
        block, offset, slots, more_at = next_block(), 0, 21, 504


def _octal(raw: bytes, what: str) -> int:
    if raw[0] & 0x80:
        return int.from_bytes(raw[1:], "big")
    text = raw.strip(b" \0")
    if text.translate(None, b"01234567"):
        raise CorruptData(f"{what} has a bad number in its sparse map")
    return int(text or b"0", 8)


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise CorruptData(f"{what} has a bad number in its sparse map")
    return int(text)


def parse_pax_sparse(
    records: list[tuple[bytes, bytes]],
    stored_bytes: int,
    next_block: Callable[[], bytes],
    *,
    what: str,
) -> SparseMap:
    """Read formats 0.0 (repeated records), 0.1 (one record) and 1.0 (map before the content).

    `next_block` gives the entry's content by blocks of 512 bytes; 1.0 alone uses it.
    """
    sparse = SparseMap()
    offsets: list[int] = []
    for key, value in records:
        match key.removeprefix(SPARSE_KEYS):
            case b"size" | b"realsize":
                sparse.real_bytes = _decimal(value, what)
            case b"name":
                sparse.name = value
            case b"offset":
                offsets.append(_decimal(value, what))
            case b"numbytes" if len(offsets) == len(sparse.segments) + 1:
                sparse.add(offsets[-1], _decimal(value, what), what=what)
            case b"map":
                numbers = [_decimal(item, what) for item in value.split(b",")]
                for offset, length in zip(numbers[::2], numbers[1::2], strict=False):
                    sparse.add(offset, length, what=what)
            case b"major" if value not in (b"0", b"1"):
                raise CorruptData(f"{what} has a sparse map of an unknown version")
            case _:
                pass
    if (SPARSE_KEYS + b"major", b"1") in records:
        _read_map_blocks(sparse, stored_bytes, next_block, what)
    return sparse


def _read_map_blocks(
    sparse: SparseMap, stored_bytes: int, next_block: Callable[[], bytes], what: str
) -> None:
    numbers: list[int] = []
    wanted, text, used_bytes = 1, b"", 0
    while len(numbers) < wanted:
        used_bytes += 512
        if used_bytes > stored_bytes:
            raise CorruptData(f"{what} has a sparse map longer than its content")
        *lines, text = (text + next_block()).split(b"\n")
        for line in lines:
            numbers.append(_decimal(line, what))
            wanted = 1 + 2 * numbers[0]
            if len(numbers) == wanted:
                break
        is_unfinished = len(numbers) < wanted and len(text) > 19
        if is_unfinished or (numbers and numbers[0] > SEGMENTS_MAX):
            raise CorruptData(f"{what} has a sparse map that is malformed or too long")
    for index in range(1, wanted, 2):
        sparse.add(numbers[index], numbers[index + 1], what=what)
