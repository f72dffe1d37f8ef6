"""Fields of docs/channel.md: tag, length, value; groups nest.

`encode_fields` writes a sequence, `Fields` reads one. Unknown tags are kept out of the way: a
reader asks for the tags that it knows.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias, Union

from app.core.errors import CorruptData, InvalidArgument
from app.guest.protocol import Tag

_HEAD = struct.Struct("<HHI")
_NUMBER = struct.Struct("<Q")
_NUMBER_MASK = (1 << 64) - 1

FieldValue: TypeAlias = Union[int, str, bytes, "FieldList"]
FieldList: TypeAlias = Sequence[tuple[Tag, FieldValue]]


def encode_fields(fields: Iterable[tuple[Tag, FieldValue]]) -> bytes:
    """Return the fields in order; a list repeats its tag.

    Numbers are u64 (negative ones as two's complement), bool becomes 0 or 1, text UTF-8 with
    surrogate escapes given back as the bytes they stand for, a nested sequence a group.

    Raises:
        InvalidArgument: A text holds NUL or can't be encoded; a number is beyond 64 bits.
    """
    parts: list[bytes] = []
    for tag, value in fields:
        data = _encode_value(tag, value)
        parts.append(_HEAD.pack(tag, 0, len(data)))
        parts.append(data)
    return b"".join(parts)


def _encode_value(tag: Tag, value: FieldValue) -> bytes:
    if isinstance(value, int):
        if not -(1 << 63) <= value <= _NUMBER_MASK:
            raise InvalidArgument(f"{tag.name}: {value} does not fit 64 bits", field=tag.name)
        return _NUMBER.pack(value & _NUMBER_MASK)
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument(f"{tag.name} must not hold a NUL character", field=tag.name)
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise InvalidArgument(f"{tag.name} is not valid text", field=tag.name) from exc
    if isinstance(value, bytes):
        return value
    return encode_fields(value)


class Fields:
    """A decoded sequence of fields."""

    __slots__ = ("_values",)

    def __init__(self, payload: bytes = b"") -> None:
        """Decode a payload.

        Raises:
            CorruptData: A field is cut off.
        """
        self._values: dict[int, list[bytes]] = {}
        position, end = 0, len(payload)
        while position < end:
            if end - position < _HEAD.size:
                raise CorruptData("A message of the guest is cut off in a field's header")
            tag, _, length = _HEAD.unpack_from(payload, position)
            position += _HEAD.size
            if length > end - position:
                raise CorruptData(f"A message of the guest is cut off in field {tag}")
            self._values.setdefault(tag, []).append(payload[position : position + length])
            position += length

    def __contains__(self, tag: Tag) -> bool:
        return tag in self._values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Fields({self._values!r})"

    def data(self, tag: Tag) -> bytes:
        """The bytes of the first field `tag`.

        Raises:
            CorruptData: There is none.
        """
        values = self._values.get(tag)
        if values is None:
            raise CorruptData(f"A message of the guest lacks {tag.name}")
        return values[0]

    def number(self, tag: Tag, default: int | None = None) -> int:
        """The first field `tag` as u64.

        Raises:
            CorruptData: It is not eight bytes long, or missing and no default was given.
        """
        if default is not None and tag not in self._values:
            return default
        return _decode_number(tag, self.data(tag))

    def flag(self, tag: Tag) -> bool:
        """Whether the flag is there and not 0."""
        return self.number(tag, 0) != 0

    def text(self, tag: Tag, default: str | None = None) -> str:
        """The first field `tag` as text; bytes that are not UTF-8 become surrogate escapes.

        Raises:
            CorruptData: It is missing and no default was given.
        """
        if default is not None and tag not in self._values:
            return default
        return self.data(tag).decode("utf-8", "surrogateescape")

    def texts(self, tag: Tag) -> list[str]:
        """All fields `tag` as text, in order; empty if there is none."""
        return [value.decode("utf-8", "surrogateescape") for value in self._values.get(tag, ())]

    def numbers(self, tag: Tag) -> list[int]:
        """All fields `tag` as u64, in order; empty if there is none."""
        return [_decode_number(tag, value) for value in self._values.get(tag, ())]

    def group(self, tag: Tag) -> "Fields":
        """The first field `tag` as a group.

        Raises:
            CorruptData: It is missing or cut off inside.
        """
        return Fields(self.data(tag))

    def groups(self, tag: Tag) -> list["Fields"]:
        """All fields `tag` as groups, in order; empty if there is none."""
        return [Fields(value) for value in self._values.get(tag, ())]


def _decode_number(tag: Tag, data: bytes) -> int:
    if len(data) != _NUMBER.size:
        raise CorruptData(f"{tag.name} of the guest is not a number")
    (number,) = _NUMBER.unpack(data)
    return int(number)


def signed(number: int) -> int:
    """Read a u64 as the two's complement number that it may stand for (OOM_SCORE_ADJ)."""
    return number - (1 << 64) if number >> 63 else number
