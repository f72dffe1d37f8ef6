"""The rate of the host's time-stamp counter, which an emulated guest reads as its own.

QEMU without KVM gives the guest the host's counter (util/qemu-timer, cpu_get_ticks). A guest that
measures its rate itself, by an emulated timer, gets it wrong when the host is busy meanwhile: one
in eight was seen whose clock ran almost four times too fast, and a template hands that on to all
its clones. So it is told (`tsc_early_khz`, Documentation/admin-guide/kernel-parameters.txt); what
Linux measures later it believes only if it differs by less than a hundredth.
"""

import ctypes
import functools
import logging
import mmap
import platform
import time

SAMPLE_S = 0.05
# rdtsc; shl rdx, 32; or rax, rdx; ret (Intel SDM volume 2, RDTSC)
_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_ATTEMPTS = 5

log = logging.getLogger(__name__)


@functools.cache
def host_tsc_khz() -> int | None:
    """Measure it, once; None where that can't be done, and then the guest has to.

    Blocks for some 50 ms.
    """
    if platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as error:  # a policy that wants no memory both writable and executable
        log.warning("The rate of the time-stamp counter is left to guests to find: %s", error)
        return None
    page.write(_READ_COUNTER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    first_ns, first = _together(read)
    time.sleep(SAMPLE_S)
    last_ns, last = _together(read)
    return round((last - first) * 1_000_000 / (last_ns - first_ns))


def _together(read: "ctypes._FuncPointer") -> tuple[int, int]:
    """Clock and counter at one moment: the pair of several that took the least time."""
    pairs: list[tuple[int, int, int]] = []
    for _ in range(_ATTEMPTS):
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = int(read())
        after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        pairs.append((after_ns - before_ns, (before_ns + after_ns) // 2, counter))
    _, at_ns, counter = min(pairs)
    return at_ns, counter
