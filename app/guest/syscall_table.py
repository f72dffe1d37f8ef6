"""Numbers of system calls, from syscalls.json.

The file is made from the kernel's headers asm/unistd_64.h, unistd_x32.h and unistd_32.h
(linux-libc-dev 6.1); x32's numbers are without the bit that marks them.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

_FILE = Path(__file__).with_name("syscalls.json")


@cache
def _tables() -> dict[str, Mapping[str, int]]:
    tables = json.loads(_FILE.read_bytes())
    return {name: MappingProxyType(table) for name, table in tables.items()}


def syscall_table(architecture: str) -> Mapping[str, int]:
    """Numbers by name; the architecture is `x86_64`, `x32` or `i386`."""
    return _tables()[architecture]
