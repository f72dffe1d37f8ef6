"""Compiles a seccomp profile to the program that the agent loads.

The program looks at the architecture, then finds the call's number by binary search over ranges of
numbers that share a fate. A call the table does not know answers ENOSYS, so that C libraries fall
back to older calls, unless the profile lets through what it does not name.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from app.core.errors import InvalidArgument
from app.guest.bpf import (
    MAX_INSTRUCTIONS,
    Code,
    branch_at_least,
    branch_equal,
    encode,
    give,
    load_architecture,
    load_number,
    test_argument,
)
from app.guest.seccomp_default import default_profile
from app.guest.seccomp_profile import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    LOG,
    Profile,
    Rule,
    parse_profile,
    reduce_profile,
)
from app.guest.syscall_table import syscall_table

__all__ = ["compile_profile", "default_profile", "default_program", "parse_profile"]

_ENOSYS = 38
# AUDIT_ARCH_X86_64 and AUDIT_ARCH_I386 of Linux include/uapi/linux/audit.h.
_AUDIT_X86_64 = 0xC000_003E
_AUDIT_I386 = 0x4000_0003
_X32_BIT = 0x4000_0000
# The oldest kernel of a distribution that the guest is built on.
_OLDEST_KERNEL = (6, 1)
_MAX_RULES_PER_CALL = 64
_PROGRAMS_KEPT = 64  # some KiB each; most containers have the same capabilities

# What happens to a call: rules in order, the last one without conditions.
Fate = tuple[Rule, ...]


def compile_profile(
    profile: Mapping[str, object],
    capabilities: frozenset[str],
    *,
    kernel: tuple[int, int] = _OLDEST_KERNEL,
) -> bytes:
    """The program for containers with these capabilities.

    Of several rules for one call, those with conditions are tried first, in the profile's order;
    then the first one without decides; then the profile's default.

    Args:
        profile: In the form of Docker's JSON files, see `parse_profile`.
        capabilities: With `CAP_`.
        kernel: Version of the guest's kernel, for rules with `minKernel`.

    Returns:
        An array of `struct sock_filter`, 8 bytes each, little endian.

    Raises:
        InvalidArgument: The profile is wrong, or too large for the kernel.
        Unsupported: It asks for a supervising process.
    """
    reduced = reduce_profile(profile, capabilities, kernel)
    native = _search(reduced, "x86_64", 0)
    # -1, with which a tracer skips a call, is here too: it must not kill.
    wide = give(ERRNO | _ENOSYS)
    if "x32" in reduced.architectures:
        wide = _search(reduced, "x32", _X32_BIT)
    native = [*load_number(), *branch_at_least(_X32_BIT, wide, native)]
    refused = give(KILL_PROCESS)
    small = refused
    if "i386" in reduced.architectures:
        small = [*load_number(), *_search(reduced, "i386", 0)]
    by_architecture = branch_equal(_AUDIT_X86_64, native, branch_equal(_AUDIT_I386, small, refused))
    program = [*load_architecture(), *by_architecture]
    if len(program) > MAX_INSTRUCTIONS:
        raise InvalidArgument(
            f"the seccomp profile needs {len(program)} instructions; Linux takes "
            f"{MAX_INSTRUCTIONS}",
            field="seccomp",
            advice="Use fewer conditions on arguments.",
        )
    return encode(program)


@lru_cache(maxsize=_PROGRAMS_KEPT)
def default_program(capabilities: frozenset[str]) -> bytes:
    """`compile_profile` of the default profile, which takes milliseconds, once per set."""
    return compile_profile(default_profile(), capabilities)


def _search(profile: Profile, architecture: str, base: int) -> Code:
    """Code that has the number in the accumulator and ends in returns."""
    return _tree(_ranges(profile, architecture, base))


def _ranges(profile: Profile, architecture: str, base: int) -> list[tuple[int, Fate]]:
    """First numbers of ranges, ascending, with what happens to the calls in each."""
    default = Rule((), profile.default_action)
    lets_through = profile.default_action in (ALLOW, LOG)
    unknown: Fate = (default if lets_through else Rule((), ERRNO | _ENOSYS),)
    fates = {
        base + number: _fate(profile.rules.get(name, ()), default, name)
        for name, number in syscall_table(architecture).items()
    }
    ranges: list[tuple[int, Fate]] = []
    for number in range(base, max(fates) + 2):
        fate = fates.get(number, unknown)
        if not ranges or ranges[-1][1] != fate:
            ranges.append((number, fate))
    return ranges


def _fate(rules: Sequence[Rule], default: Rule, name: str) -> Fate:
    conditional = [rule for rule in rules if rule.conditions]
    if len(conditional) > _MAX_RULES_PER_CALL:
        raise InvalidArgument(
            f"the seccomp profile has more than {_MAX_RULES_PER_CALL} conditions for {name}",
            field="seccomp",
        )
    final = next((rule for rule in rules if not rule.conditions), default)
    while conditional and conditional[-1].action == final.action:
        conditional.pop()
    return (*conditional, final)


def _tree(ranges: Sequence[tuple[int, Fate]]) -> Code:
    if len(ranges) == 1:
        return _decide(ranges[0][1])
    middle = len(ranges) // 2
    return branch_at_least(ranges[middle][0], _tree(ranges[middle:]), _tree(ranges[:middle]))


def _decide(fate: Fate) -> Code:
    code: Code = []
    for rule in fate:
        piece = give(rule.action)
        for condition in reversed(rule.conditions):
            test = test_argument(
                condition.index,
                condition.operator,
                condition.value,
                condition.value_two,
                skip=len(piece),
            )
            piece = [*test, *piece]
        code += piece
    return code
