"""Reads `WWW-Authenticate` (RFC 9110, 11.6.1)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  (a pattern)
_SCHEME_RE = re.compile(rf"\s*,*\s*({_TOKEN})(?:\s+|$)(?!\s*=)")
_PAIR_RE = re.compile(rf'\s*,*\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_LENGTH_MAX = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to say who asks.

    Attributes:
        scheme: In lower case.
        parameters: By name in lower case.
    """

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of an answer's headers; what can't be read ends its header."""
    return [challenge for header in headers for challenge in _parse(header[:_LENGTH_MAX])]


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    place = 0
    while match := _SCHEME_RE.match(header, place):
        challenge = Challenge(match[1].lower())
        found.append(challenge)
        place = match.end()
        while pair := _PAIR_RE.match(header, place):
            value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
            challenge.parameters[pair[1].lower()] = value
            place = pair.end()
    return found
