"""The two halves of docs/channel.md say the same, name by name."""

import re
from enum import IntEnum
from functools import cache
from pathlib import Path

import pytest

from app.guest import protocol

HEADER_FILE = Path(__file__).parents[3] / "guest/agent/protocol.h"
PREFIXES: dict[str, type[IntEnum]] = {
    "FRAME": protocol.FrameType,
    "OP": protocol.Op,
    "EVENT": protocol.EventKind,
    "PROCESS_STATE": protocol.ProcessState,
    "DIRECTION": protocol.Direction,
    "TREE_VIEW": protocol.TreeView,
    "TREE_RECORD": protocol.TreeRecordKind,
    "CHANGE": protocol.ChangeKind,
    "TAG": protocol.Tag,
}
# Of one side only: how C writes the magic; what only the host sends.
C_ONLY = {"FRAME_MAGIC"}
PYTHON_ONLY = {"MAGIC", "RESYNC_ZERO_BYTES"}


@cache
def c_enumerators() -> dict[str, int]:
    text = re.sub(r"/\*.*?\*/", "", HEADER_FILE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {name: int(value) for name, value in re.findall(r"^\s+(\w+) = (\d+),$", text, re.M)}


@cache
def c_constants() -> dict[str, int]:
    found: dict[str, int] = {}
    text = HEADER_FILE.read_text(encoding="utf-8")
    for name, value in re.findall(r"^#define (\w+) (\S.*?)(?:\s*/\*.*)?$", text, re.M):
        expression = re.sub(r"0x([0-9a-f]+)u", lambda match: str(int(match[1], 16)), value)
        expression = re.sub(r"[A-Z_]+", lambda match: str(found[match[0]]), expression)
        terms = [int(term) for term in expression.strip("()").split(" - ")]
        found[name] = terms[0] - sum(terms[1:])
    return found


@pytest.mark.parametrize("prefix", PREFIXES)
def test_enumerators_are_the_same(prefix: str) -> None:
    ours = {f"{prefix}_{member.name}": int(member) for member in PREFIXES[prefix]}
    theirs = {
        name: value
        for name, value in c_enumerators().items()
        if name.startswith(prefix + "_") and name.removeprefix(prefix + "_").isupper()
    }
    assert ours == theirs


def test_every_c_enumerator_belongs_to_an_enumeration() -> None:
    ours = {f"{prefix}_{member.name}" for prefix, kind in PREFIXES.items() for member in kind}
    assert set(c_enumerators()) == ours


def test_constants_are_the_same() -> None:
    ours = {
        name: value
        for name, value in vars(protocol).items()
        if name.isupper() and name not in PYTHON_ONLY
    }
    theirs = {name: value for name, value in c_constants().items() if name not in C_ONLY}
    assert ours == theirs


def test_magic_is_the_same() -> None:
    assert c_constants()["FRAME_MAGIC"].to_bytes(4, "little") == protocol.MAGIC


def test_resync_zeros_complete_any_torn_frame() -> None:
    assert protocol.RESYNC_ZERO_BYTES >= protocol.MAX_FRAME_BYTES - 1
