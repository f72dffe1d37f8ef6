"""Takes the ELF kernel out of a bzImage.

An ELF kernel boots by PVH in half the time of the bzImage under software emulation, because nothing
is decompressed by emulated instructions. Layout: Linux Documentation/arch/x86/boot.rst (setup
header).
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

import zstandard

from app.core.errors import CorruptData

_MAX_VMLINUX_BYTES = 512 * 1024 * 1024
_SETUP_SECTORS_AT = 0x1F1
_MAGIC_AT = 0x202
_VERSION_AT = 0x206
_PAYLOAD_OFFSET_AT = 0x248
_FIRST_VERSION_WITH_PAYLOAD = 0x0208
_SECTOR_BYTES = 512
# A setup_sects of 0 means 4, for kernels of another age.
_DEFAULT_SETUP_SECTORS = 4
_LZ4_MAGIC = b"\x02\x21\x4c\x18"


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The ELF file inside a bzImage.

    Takes the compressions that the kernel's build offers: gzip, bzip2, lzma, xz, lz4 and zstd.

    Raises:
        CorruptData: It is no bzImage, or its payload is damaged, of an unknown form, or no
            64-bit ELF file.
    """
    payload = _payload(bzimage)
    decompress = next((f for magic, f in _FORMATS if payload.startswith(magic)), None)
    if decompress is None:
        raise CorruptData(f"the kernel's payload has an unknown form ({payload[:6].hex()})")
    try:
        vmlinux = decompress(payload)
    except (lzma.LZMAError, zlib.error, OSError, EOFError, zstandard.ZstdError) as exc:
        raise CorruptData(f"the kernel's payload cannot be decompressed: {exc}") from exc
    except (IndexError, struct.error) as exc:
        raise CorruptData("the kernel's payload ends early") from exc
    if vmlinux[:6] != b"\x7fELF\x02\x01":
        raise CorruptData("the kernel's payload is no 64-bit ELF file")
    return vmlinux


def _payload(bzimage: bytes) -> bytes:
    if len(bzimage) < _PAYLOAD_OFFSET_AT + 8 or bzimage[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        raise CorruptData("the kernel is no bzImage: it has no setup header")
    (version,) = struct.unpack_from("<H", bzimage, _VERSION_AT)
    if version < _FIRST_VERSION_WITH_PAYLOAD:
        raise CorruptData(f"the kernel's boot protocol {version:#x} tells no payload")
    setup_sectors = bzimage[_SETUP_SECTORS_AT] or _DEFAULT_SETUP_SECTORS
    offset, length = struct.unpack_from("<II", bzimage, _PAYLOAD_OFFSET_AT)
    start = (setup_sectors + 1) * _SECTOR_BYTES + offset
    payload = bzimage[start : start + length]
    if not payload or len(payload) < length:
        raise CorruptData("the kernel ends before its payload does")
    return payload


# The payload carries its uncompressed size behind the stream, hence decompressors that stop at the
# end of their stream.


def _gunzip(payload: bytes) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    return _finished(stream.decompress(payload, _MAX_VMLINUX_BYTES), stream.eof)


def _bunzip2(payload: bytes) -> bytes:
    stream = bz2.BZ2Decompressor()
    return _finished(stream.decompress(payload, _MAX_VMLINUX_BYTES), stream.eof)


def _unlzma(payload: bytes) -> bytes:
    stream = lzma.LZMADecompressor()
    return _finished(stream.decompress(payload, _MAX_VMLINUX_BYTES), stream.eof)


def _unzstd(payload: bytes) -> bytes:
    stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    return _finished(stream.decompress(payload), stream.eof)


def _finished(data: bytes, is_finished: bool) -> bytes:
    if not is_finished:
        raise EOFError("it ends early or is larger than any kernel")
    return data


def _unlz4(payload: bytes) -> bytes:
    """LZ4's legacy frame: magic, then blocks of up to 8 MiB, each behind its compressed size."""
    output = bytearray()
    position = len(_LZ4_MAGIC)
    # What is left at the end is the uncompressed size of the whole.
    while len(payload) - position > 4:
        (size_bytes,) = struct.unpack_from("<I", payload, position)
        position += 4
        if size_bytes > len(payload) - position:
            raise EOFError("a block is longer than what is left")
        _unlz4_block(payload[position : position + size_bytes], output)
        position += size_bytes
        if len(output) > _MAX_VMLINUX_BYTES:
            raise EOFError("it is larger than any kernel")
    return bytes(output)


def _unlz4_block(block: bytes, output: bytearray) -> None:
    """Append what a block holds (LZ4 block format description)."""
    block_start = len(output)
    position = 0
    while position < len(block):
        token = block[position]
        literals, position = _lz4_length(block, position + 1, token >> 4)
        output += block[position : position + literals]
        position += literals
        if position >= len(block):
            return  # the last sequence has no match
        distance = block[position] | block[position + 1] << 8
        match_length, position = _lz4_length(block, position + 2, token & 15)
        start = len(output) - distance
        if distance == 0 or start < block_start:
            raise EOFError("a match lies outside its block")
        _repeat(output, start, match_length + 4)


def _lz4_length(block: bytes, position: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            byte = block[position]
            position += 1
            length += byte
            if byte != 255:
                break
    return length, position


def _repeat(output: bytearray, start: int, length: int) -> None:
    """Append `length` bytes from `start`; source and what is appended may overlap."""
    pattern = bytes(output[start : start + length])
    whole, rest = divmod(length, len(pattern))
    output += pattern * whole + pattern[:rest]


_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", _gunzip),
    (b"BZh", _bunzip2),
    (b"\x5d\x00\x00", _unlzma),
    (b"\xfd7zXZ\x00", _unlzma),
    (_LZ4_MAGIC, _unlz4),
    (b"\x28\xb5\x2f\xfd", _unzstd),
)
