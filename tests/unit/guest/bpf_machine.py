"""An interpreter of classic BPF, strict as the kernel's checker: what it runs, Linux loads."""

import struct

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
ERRNO = 0x0005_0000
X86_64 = 0xC000_003E
I386 = 0x4000_0003
X32_BIT = 0x4000_0000
EPERM = ERRNO | 1
ENOSYS = ERRNO | 38


class Machine:
    """A program that has passed the checks of the kernel (jumps inside, ends in returns)."""

    def __init__(self, program: bytes) -> None:
        assert program
        assert len(program) % 8 == 0
        self.code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
        assert len(self.code) <= 4096
        assert self.code[-1][0] == 0x06
        for at, (code, if_true, if_false, operand) in enumerate(self.code):
            if code == 0x05:
                assert at + 1 + operand < len(self.code)
            elif code in (0x15, 0x25, 0x35):
                assert at + 1 + max(if_true, if_false) < len(self.code)
            elif code == 0x20:
                assert operand % 4 == 0
                assert operand < 64
            else:
                assert code in (0x06, 0x54), hex(code)

    def run(self, architecture: int, number: int, *arguments: int) -> int:
        """What the program gives for a call."""
        padded = [*arguments, *([0] * (6 - len(arguments)))]
        data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
        accumulator: int = 0
        at = 0
        while True:
            code, if_true, if_false, operand = self.code[at]
            at += 1
            if code == 0x06:
                return int(operand)
            if code == 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            elif code == 0x54:
                accumulator &= operand
            elif code == 0x05:
                at += operand
            else:
                is_true = {
                    0x15: accumulator == operand,
                    0x25: accumulator > operand,
                    0x35: accumulator >= operand,
                }[code]
                at += if_true if is_true else if_false
