"""The ELF kernel in a bzImage, in every compression that a kernel may have."""

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess

import pytest
import zstandard

from app.core.errors import CorruptData
from app.guest.vmlinux import extract_vmlinux
from tests.unit.guest.kernel_package import VMLINUX, bzimage, xz_payload

SIZE = struct.pack("<I", len(VMLINUX))
LZ4_MAGIC = b"\x02\x21\x4c\x18"


def lz4_block(*sequences: bytes) -> bytes:
    block = b"".join(sequences)
    return struct.pack("<I", len(block)) + block


@pytest.mark.parametrize(
    "payload",
    [
        xz_payload(),
        gzip.compress(VMLINUX),
        bz2.compress(VMLINUX) + SIZE,
        lzma.compress(VMLINUX, format=lzma.FORMAT_ALONE) + SIZE,
        zstandard.compress(VMLINUX) + SIZE,
    ],
    ids=["xz", "gzip", "bzip2", "lzma", "zstd"],
)
def test_payload_is_unpacked(payload: bytes) -> None:
    assert extract_vmlinux(bzimage(payload)) == VMLINUX


def test_lz4_payload_is_unpacked() -> None:
    elf = b"\x7fELF\x02\x01"
    # Literals, then an overlapping match of 3 + 4 + 15 + 255 + 0 bytes; then literals alone.
    first = bytes([0x7F]) + elf + b"." + b"\x01\x00" + bytes([255, 0])
    payload = LZ4_MAGIC + lz4_block(first, b"\x30end") + lz4_block(b"\xf0\x05" + b"y" * 20)
    expected = elf + b"." + b"." * 274 + b"end" + b"y" * 20
    assert extract_vmlinux(bzimage(payload + SIZE)) == expected


@pytest.mark.skipif(shutil.which("lz4") is None, reason="the program lz4 is not installed")
def test_lz4_agrees_with_the_program() -> None:
    chance = random.Random(4)
    words = [chance.randbytes(chance.randrange(1, 40)) for _ in range(50)]
    data = b"\x7fELF\x02\x01" + b"".join(chance.choice(words) for _ in range(20_000))
    packed = subprocess.run(
        ["lz4", "-l", "-9", "-c"], input=data, capture_output=True, check=True, timeout=10
    ).stdout
    assert extract_vmlinux(bzimage(packed + SIZE)) == data


def test_old_kernel_without_sector_count_has_four() -> None:
    image = bytearray(bzimage(xz_payload(), setup_sectors=4))
    image[0x1F1] = 0
    assert extract_vmlinux(bytes(image)) == VMLINUX


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no bzImage"),
        (b"\x7fELF" + bytes(2000), "no bzImage"),
        (bzimage(xz_payload(), version=0x0207), "tells no payload"),
        (bzimage(xz_payload())[:-200], "ends before"),
        (bzimage(b""), "ends before"),
        (bzimage(b"unknown"), "unknown form"),
        (bzimage(lzma.compress(VMLINUX)[:-30]), "decompressed"),
        (bzimage(b"\xfd7zXZ\x00" + bytes(100)), "decompressed"),
        (bzimage(zstandard.compress(VMLINUX)[:-9]), "decompressed"),
        (bzimage(gzip.compress(VMLINUX)[:-20]), "decompressed"),
        (bzimage(LZ4_MAGIC + b"\xff\xff\x00\x00" + bytes(50)), "decompressed"),
        (bzimage(LZ4_MAGIC + lz4_block(b"\x10a\x05\x00", b"\x10a") + SIZE), "decompressed"),
        (bzimage(LZ4_MAGIC + lz4_block(b"\xf0\xff") + SIZE), "ends early"),
        (bzimage(xz_payload(b"something else")), "no 64-bit ELF"),
        (bzimage(xz_payload(b"\x7fELF\x01\x01 32 bits")), "no 64-bit ELF"),
    ],
)
def test_damaged_kernel_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        extract_vmlinux(image)
