"""Reads a seccomp profile in the form of Docker's JSON files.

Format: OCI runtime spec, config-linux.md, Seccomp, with Docker's additions `archMap`, `includes`
and `excludes` (moby, profiles/seccomp). A profile may be anybody's: every value is checked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.errors import InvalidArgument, Unsupported

_FIELD = "seccomp"
_MAX_TEXT_BYTES = 1024 * 1024
_MAX_ERRNO = 4095
_MAX_VALUE = 0xFFFF_FFFF_FFFF_FFFF
_DEFAULT_ERRNO = 1  # EPERM
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_NATIVE = "SCMP_ARCH_X86_64"
_GO_ARCHITECTURE = "amd64"
ARCHITECTURES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X32": "x32", "SCMP_ARCH_X86": "i386"}

# SECCOMP_RET_ values of Linux include/uapi/linux/seccomp.h.
ALLOW = 0x7FFF_0000
LOG = 0x7FFC_0000
TRACE = 0x7FF0_0000
ERRNO = 0x0005_0000
KILL_PROCESS = 0x8000_0000
_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
}


@dataclass(frozen=True)
class Condition:
    """A test of one argument, see `bpf.test_argument`."""

    index: int
    operator: str
    value: int
    value_two: int


@dataclass(frozen=True)
class Rule:
    """What happens to a call whose arguments fit all conditions."""

    conditions: tuple[Condition, ...]
    action: int


@dataclass(frozen=True)
class Profile:
    """A profile, reduced to what is true for given capabilities.

    Attributes:
        default_action: SECCOMP_RET_ value for calls without a fitting rule.
        architectures: `x86_64`, and `x32` and `i386` if the profile names them.
        rules: By name of the call, in the profile's order.
    """

    default_action: int
    architectures: frozenset[str]
    rules: Mapping[str, Sequence[Rule]]


def parse_profile(text: bytes) -> dict[str, object]:
    """Decode a profile file, as `--security-opt seccomp=FILE` names it.

    Raises:
        InvalidArgument: It is no JSON object, or too large.
    """
    if len(text) > _MAX_TEXT_BYTES:
        raise _fault(f"the profile is larger than {_MAX_TEXT_BYTES} bytes")
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _fault(f"the profile is not JSON: {exc}") from exc
    return dict(_object(profile, "the profile"))


def reduce_profile(
    profile: Mapping[str, object], capabilities: frozenset[str], kernel: tuple[int, int]
) -> Profile:
    """Check a profile and leave out the rules that do not apply.

    Args:
        profile: Decoded JSON.
        capabilities: Of the container, with `CAP_`.
        kernel: Version of the guest's kernel, for `minKernel`.

    Raises:
        InvalidArgument: The profile is wrong; the message names the place.
        Unsupported: It asks for a supervising process (SCMP_ACT_NOTIFY).
    """
    default = _action(profile, "defaultAction", "defaultErrnoRet", "the profile")
    rules: dict[str, list[Rule]] = {}
    for index, item in enumerate(_list(profile, "syscalls", "the profile")):
        place = f"syscalls[{index}]"
        entry = _object(item, place)
        if _applies(entry, place, capabilities, kernel):
            for rule in _rules(entry, place):
                for name in _names(entry, place):
                    rules.setdefault(name, []).append(rule)
    return Profile(default, _architectures(profile), rules)


def _architectures(profile: Mapping[str, object]) -> frozenset[str]:
    named = _texts(profile, "architectures", "the profile")
    for index, item in enumerate(_list(profile, "archMap", "the profile")):
        place = f"archMap[{index}]"
        entry = _object(item, place)
        if entry.get("architecture") == _NATIVE:
            named += _texts(entry, "subArchitectures", place)
    return frozenset(ARCHITECTURES[name] for name in (_NATIVE, *named) if name in ARCHITECTURES)


def _names(entry: Mapping[str, object], place: str) -> list[str]:
    single = entry.get("name")
    names = _texts(entry, "names", place)
    if isinstance(single, str) and single:
        names.append(single)
    if not names:
        raise _fault(f"{place} names no system call")
    return names


def _rules(entry: Mapping[str, object], place: str) -> list[Rule]:
    action = _action(entry, "action", "errnoRet", place)
    conditions = [
        _condition(item, f"{place}.args[{index}]")
        for index, item in enumerate(_list(entry, "args", place))
    ]
    indices = [condition.index for condition in conditions]
    if len(set(indices)) < len(indices):
        # As runc does: tests of one argument are alternatives.
        return [Rule((condition,), action) for condition in conditions]
    return [Rule(tuple(conditions), action)]


def _condition(item: object, place: str) -> Condition:
    entry = _object(item, place)
    operator = str(entry.get("op", "")).removeprefix("SCMP_CMP_")
    if operator not in _OPERATORS:
        raise _fault(f"{place}.op is unknown: {entry.get('op')!r}")
    return Condition(
        index=_number(entry, "index", place, 5),
        operator=operator,
        value=_number(entry, "value", place, _MAX_VALUE),
        value_two=_number(entry, "valueTwo", place, _MAX_VALUE),
    )


def _action(entry: Mapping[str, object], key: str, errno_key: str, place: str) -> int:
    name = entry.get(key)
    if name == "SCMP_ACT_NOTIFY":
        raise Unsupported(
            f"{place}: SCMP_ACT_NOTIFY needs a supervising process, which Slipway has not",
            advice="Use SCMP_ACT_ERRNO.",
        )
    action = _ACTIONS.get(name) if isinstance(name, str) else None
    if action is None:
        raise _fault(f"{place}.{key} is unknown: {name!r}")
    if action not in (ERRNO, TRACE):
        return action
    if entry.get(errno_key) is None:
        return action | _DEFAULT_ERRNO
    return action | _number(entry, errno_key, place, _MAX_ERRNO)


def _applies(
    entry: Mapping[str, object],
    place: str,
    capabilities: frozenset[str],
    kernel: tuple[int, int],
) -> bool:
    includes = _object(entry.get("includes") or {}, f"{place}.includes")
    excludes = _object(entry.get("excludes") or {}, f"{place}.excludes")
    wanted = _texts(includes, "arches", place)
    if wanted and _GO_ARCHITECTURE not in wanted:
        return False
    if _GO_ARCHITECTURE in _texts(excludes, "arches", place):
        return False
    if not capabilities.issuperset(_texts(includes, "caps", place)):
        return False
    if capabilities.intersection(_texts(excludes, "caps", place)):
        return False
    at_least = _version(includes.get("minKernel"), place)
    if at_least is not None and kernel < at_least:
        return False
    below = _version(excludes.get("minKernel"), place)
    return below is None or kernel < below


def _version(value: object, place: str) -> tuple[int, int] | None:
    if not value:
        return None
    major, _, minor = str(value).partition(".")
    if not (major.isdecimal() and minor.isdecimal() and len(str(value)) < 12):
        raise _fault(f"{place}: minKernel {value!r} is no version such as 4.8")
    return int(major), int(minor)


def _object(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _fault(f"{place} must be an object")
    return value


def _list(entry: Mapping[str, object], key: str, place: str) -> Sequence[object]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _fault(f"{place}.{key} must be a list")
    return value


def _texts(entry: Mapping[str, object], key: str, place: str) -> list[str]:
    items = _list(entry, key, place)
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        raise _fault(f"{place}.{key} must be a list of strings")
    return texts


def _number(entry: Mapping[str, object], key: str, place: str, maximum: int) -> int:
    value = entry.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise _fault(f"{place}.{key} must be a number from 0 to {maximum}")
    return value


def _fault(message: str) -> InvalidArgument:
    return InvalidArgument(
        f"seccomp profile: {message}",
        field=_FIELD,
        advice="The form is that of Docker's seccomp profiles.",
    )
