"""A kernel and an initrd of no bytes worth naming, for QEMUs that never boot.

A clone's memory holds its running kernel. But the ROM that loads one is part of the machine and
of the saved state, so QEMU must be given a kernel: mapping the real one would cost each clone
start time and memory. Format: ELF-64 and the note XEN_ELFNOTE_PHYS32_ENTRY of the PVH boot ABI
(Xen's docs/misc/pvh.pandoc, xen/include/public/elfnote.h).
"""

import os
import struct

_HEADER_READ_BYTES = 8192  # QEMU looks at so much of a kernel (hw/i386/x86.c)
_ENTRY_ADDRESS = 1024 * 1024
_PHYS32_ENTRY = 18
_PT_LOAD, _PT_NOTE = 1, 4
_EM_X86_64, _ET_EXEC, _PF_R_X = 62, 2, 5
_ELF_HEADER_BYTES, _PROGRAM_HEADER_BYTES = 64, 56


def stand_in_kernel() -> bytes:
    """An ELF file that QEMU takes for a PVH kernel: one segment, which only halts."""
    note = struct.pack("<III4sQ", 4, 8, _PHYS32_ENTRY, b"Xen\0", _ENTRY_ADDRESS)
    code = b"\xf4\xeb\xfd"  # hlt; jmp back
    note_offset = _ELF_HEADER_BYTES + 2 * _PROGRAM_HEADER_BYTES
    code_offset = note_offset + len(note)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH",
        *(_ET_EXEC, _EM_X86_64, 1, _ENTRY_ADDRESS, _ELF_HEADER_BYTES, 0, 0),
        *(_ELF_HEADER_BYTES, _PROGRAM_HEADER_BYTES, 2, 0, 0, 0),
    )
    segments = _segment(_PT_LOAD, code_offset, len(code)) + _segment(
        _PT_NOTE, note_offset, len(note)
    )
    return (header + segments + note + code).ljust(_HEADER_READ_BYTES, b"\0")


def _segment(kind: int, offset: int, size_bytes: int) -> bytes:
    address = _ENTRY_ADDRESS if kind == _PT_LOAD else 0
    return struct.pack(
        "<IIQQQQQQ", kind, _PF_R_X, offset, address, address, size_bytes, size_bytes, 4
    )


def open_stand_ins() -> tuple[int, int]:
    """Descriptors of a kernel and an initrd in memory, which any user may open anew."""
    opened: list[int] = []
    try:
        for name, content in (("kernel", stand_in_kernel()), ("initrd", bytes(16))):
            fd = os.memfd_create(f"slipway-no-{name}", os.MFD_CLOEXEC)
            opened.append(fd)
            os.write(fd, content)
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened[0], opened[1]
