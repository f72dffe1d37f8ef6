"""The keys by which somebody at a terminal leaves it without ending what runs there."""

from app.core.errors import InvalidArgument

DEFAULT_KEYS = b"\x10\x11"  # ^P ^Q
_CONTROL = "ctrl-"
_CONTROLS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """Read `ctrl-p,ctrl-q` or `a,ctrl-@`; empty: the default (moby, term/ascii.go).

    Raises:
        InvalidArgument: A key is unknown.
    """
    return bytes(_code(key, text) for key in text.split(",")) if text else DEFAULT_KEYS


def _code(key: str, text: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    control = key.removeprefix(_CONTROL).lower()
    if key.startswith(_CONTROL) and len(control) == 1:
        if "a" <= control <= "z":
            return ord(control) - ord("a") + 1
        if control in _CONTROLS:
            return _CONTROLS[control]
    raise InvalidArgument(f"Invalid detach keys ({text}) provided")


class DetachScanner:
    """Looks for the keys in what is typed; keys that may yet be the beginning are held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes to the process, and whether the keys were typed, after which nothing goes."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False
