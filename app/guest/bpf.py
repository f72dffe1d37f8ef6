"""Classic BPF programs over `struct seccomp_data`, put together from pieces that know their length.

Every piece ends in returns, or falls through at its end, so pieces are joined without labels.
Instructions: Linux include/uapi/linux/bpf_common.h; data: include/uapi/linux/seccomp.h.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_JUMP_GREATER_OR_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_MAX_SHORT_JUMP = 255
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_NUMBER_AT = 0
_ARCHITECTURE_AT = 4
_ARGUMENTS_AT = 16
_WORD_MASK = 0xFFFF_FFFF


class Instruction(NamedTuple):
    """`struct sock_filter`: jumps count instructions after this one."""

    code: int
    if_true: int
    if_false: int
    operand: int


Code = list[Instruction]


def encode(code: Sequence[Instruction]) -> bytes:
    """An array of `struct sock_filter`, little endian, 8 bytes each."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def give(value: int) -> Code:
    """End with a SECCOMP_RET_ value."""
    return [Instruction(_RETURN, 0, 0, value)]


def load_number() -> Code:
    """Take the system call's number into the accumulator."""
    return [Instruction(_LOAD_WORD, 0, 0, _NUMBER_AT)]


def load_architecture() -> Code:
    """Take the AUDIT_ARCH_ value into the accumulator."""
    return [Instruction(_LOAD_WORD, 0, 0, _ARCHITECTURE_AT)]


def branch_equal(value: int, then: Code, otherwise: Code) -> Code:
    """`then` if the accumulator is the value; `then` must end in returns."""
    return _branch(_JUMP_EQUAL, value, otherwise, then, swapped=True)


def branch_at_least(value: int, then: Code, otherwise: Code) -> Code:
    """`then` if the accumulator is the value or more; `otherwise` must end in returns."""
    return _branch(_JUMP_GREATER_OR_EQUAL, value, then, otherwise, swapped=False)


def _branch(code: int, value: int, far: Code, near: Code, *, swapped: bool) -> Code:
    """A test, then `near`, then `far`; `near` is what is true if swapped."""
    skip = len(near)
    if skip <= _MAX_SHORT_JUMP:
        jumps = (0, skip) if swapped else (skip, 0)
        return [Instruction(code, *jumps, value), *near, *far]
    jumps = (1, 0) if swapped else (0, 1)
    return [Instruction(code, *jumps, value), Instruction(_JUMP, 0, 0, skip), *near, *far]


def test_argument(index: int, operator: str, value: int, value_two: int, skip: int) -> Code:
    """Fall through if an argument fits, else go on `skip` instructions after this piece.

    Args:
        index: 0 to 5.
        operator: libseccomp's name without SCMP_CMP_: NE, LT, LE, EQ, GE, GT or MASKED_EQ.
        value: Unsigned 64 bits; of MASKED_EQ the mask.
        value_two: Of MASKED_EQ what must be left under the mask.
        skip: At most 200.
    """
    low_at = _ARGUMENTS_AT + 8 * index
    high, low = value >> 32, value & _WORD_MASK
    load_high = Instruction(_LOAD_WORD, 0, 0, low_at + 4)
    load_low = Instruction(_LOAD_WORD, 0, 0, low_at)
    if operator == "MASKED_EQ":
        wanted_high, wanted_low = value_two >> 32, value_two & _WORD_MASK
        return [
            load_high,
            Instruction(_AND, 0, 0, high),
            Instruction(_JUMP_EQUAL, 0, skip + 3, wanted_high),
            load_low,
            Instruction(_AND, 0, 0, low),
            Instruction(_JUMP_EQUAL, 0, skip, wanted_low),
        ]
    if operator in ("EQ", "NE"):
        fits, fails = (0, skip) if operator == "EQ" else (skip, 0)
        return [
            load_high,
            Instruction(_JUMP_EQUAL, 0, fails + 2, high),
            load_low,
            Instruction(_JUMP_EQUAL, fits, fails, low),
        ]
    # LT and LE are the contrary of GE and GT.
    is_contrary = operator in ("LT", "LE")
    is_strict = operator in ("GT", "LE")
    fits, fails = (skip, 0) if is_contrary else (0, skip)
    return [
        load_high,
        Instruction(_JUMP_GREATER, fits + 3, 0, high),
        Instruction(_JUMP_EQUAL, 0, fails + 2, high),
        load_low,
        Instruction(_JUMP_GREATER if is_strict else _JUMP_GREATER_OR_EQUAL, fits, fails, low),
    ]
