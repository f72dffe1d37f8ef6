"""Linux signal names as Docker accepts them: KILL, SIGKILL, 9, RTMIN+3 (signal(7), x86-64)."""

import re

from app.core.errors import InvalidFields

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT "
    "STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_NUMBERS = {name: number for number, name in enumerate(_NAMES, start=1)} | {
    "CLD": 17,
    "IOT": 6,
    "POLL": 29,
}
REALTIME_FIRST = 34
REALTIME_LAST = 64
SIGKILL = 9


def signal_number(text: str) -> int:
    """The number of a signal given by name or number.

    Raises:
        InvalidFields: Linux has no such signal.
    """
    name = text.strip().upper().removeprefix("SIG")
    number = _NUMBERS.get(name, 0)
    if name.isdecimal():
        number = int(name)
    elif match := re.fullmatch(r"RT(MIN|MAX)(?:([+-])(\d+))?", name):
        base = REALTIME_FIRST if match[1] == "MIN" else REALTIME_LAST
        number = base + int(f"{match[2] or '+'}{match[3] or 0}")
        if not REALTIME_FIRST <= number <= REALTIME_LAST:
            number = 0
    if not 1 <= number <= REALTIME_LAST:
        raise InvalidFields({"signal": f"Invalid signal: {text}"})
    return number
