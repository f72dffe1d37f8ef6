import asyncio
import socket
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.domain.vm import Accelerator
from app.services.doctor import facts as module
from app.services.doctor.facts import (
    GuestFacts,
    Subject,
    gather,
    has_user,
    is_port_free,
    look_at_directory,
    read_meminfo,
)

GUEST = GuestFacts("6.1", 1)


class ProbeOnly:
    """As much of a hypervisor as the doctor asks."""

    def __init__(self, answer: Accelerator | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def accelerator(self) -> Accelerator:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(
        data_dir=tmp_path / "data",
        host="127.0.0.1",
        port=1,
        memory_reserve_bytes=1,
        default_memory_bytes=1,
        qemu_user="root",
        static_dir=tmp_path / "static",
        assets=("a.js",),
    )


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    async def version_of(program: str, arguments: tuple[str, ...]) -> str:
        return "9.0"

    monkeypatch.setattr(module, "_version_of", version_of)


@pytest.mark.usefixtures("qemu")
async def test_gather_asks_the_hypervisor_once(subject: Subject) -> None:
    answer = Accelerator("tcg", "forced", 10.0)
    probe = ProbeOnly(answer)
    facts = await gather(subject, probe, GUEST)  # type: ignore[arg-type]
    assert facts.accelerator == answer
    assert probe.asked == 1
    assert facts.missing_assets == ("a.js",)
    assert facts.memory_total_bytes > 0


@pytest.mark.usefixtures("qemu")
async def test_gather_keeps_the_words_of_a_failed_probe(subject: Subject) -> None:
    probe = ProbeOnly(Unavailable("QEMU refused"))
    facts = await gather(subject, probe, GUEST)  # type: ignore[arg-type]
    assert facts.accelerator is None
    assert facts.accelerator_error == "QEMU refused"


@pytest.mark.usefixtures("qemu")
async def test_gather_probes_nothing_without_a_guest(subject: Subject) -> None:
    probe = ProbeOnly(Unavailable("not reached"))
    facts = await gather(subject, probe, GuestFacts("", 0, "not built"))  # type: ignore[arg-type]
    assert probe.asked == 0
    assert facts.accelerator_error == ""


async def test_version_is_read_from_what_a_program_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho tool version 4.5.1 '(2022/03/17)' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(module, "PATH_FOR_PROGRAMS", str(tmp_path))
    assert await module._version_of("tool", ("-version",)) == "4.5.1"
    assert await module._version_of("other", ()) is None


async def test_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(module, "PATH_FOR_PROGRAMS", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "VERSION_TIMEOUT_S", 0.2)
    async with asyncio.timeout(10):
        assert await module._version_of("tool", ()) == ""


def test_meminfo_without_lines_is_zero() -> None:
    assert read_meminfo("") == (0, 0)
    assert read_meminfo("MemTotal:  16 kB\nMemAvailable: 4 kB\n") == (16384, 4096)


def test_port_of_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_port_free("127.0.0.1", listener.getsockname()[1])
    assert not is_port_free("192.0.2.1", 8080)


def test_directory_before_it_exists_is_judged_by_its_parent(tmp_path: Path) -> None:
    seen = look_at_directory(tmp_path / "a/b")
    assert seen.mode is None
    assert seen.is_writable
    assert seen.free_bytes > 0


def test_file_in_place_of_the_directory_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not look_at_directory(tmp_path / "file").is_writable


def test_unknown_user_is_not_there() -> None:
    assert has_user("root")
    assert not has_user("no-such-user")
