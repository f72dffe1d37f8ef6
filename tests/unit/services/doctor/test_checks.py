"""Each check has a machine on which it passes, and one fault that it finds with a cure."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.core.units import GIB, MIB
from app.domain.vm import Accelerator
from app.services.doctor.checks import CHECKS, Finding, Verdict, examine
from app.services.doctor.facts import PROGRAMS, DirectoryFacts, Facts, GuestFacts
from app.storage.data_directory import EngineAddress

DIRECTORY = DirectoryFacts(
    path=Path("/data"), mode=0o700, owner_uid=0, is_writable=True, free_bytes=50 * GIB
)
NO_GUEST = GuestFacts("", 0, "not built for this version yet")
HEALTHY = Facts(
    system="Debian GNU/Linux 12 (bookworm)",
    architecture="x86_64",
    python_version=(3, 11, 2),
    sqlite_version="3.40.1",
    sqlite_has_fts5=True,
    programs={**dict.fromkeys(PROGRAMS, "1.0"), "qemu-system-x86_64": "7.2.17"},
    kvm_exists=True,
    kvm_is_accessible=True,
    accelerator=Accelerator("kvm", "the guest booted on it", 210.0),
    accelerator_error="",
    guest=GuestFacts("6.1.0-39-amd64", 40 * MIB),
    memory_total_bytes=16 * GIB,
    memory_available_bytes=12 * GIB,
    memory_reserve_bytes=512 * MIB,
    default_memory_bytes=GIB,
    data_directory=DIRECTORY,
    uid=0,
    host="127.0.0.1",
    port=8080,
    has_port=True,
    engine=None,
    missing_assets=(),
    qemu_user="nobody",
    qemu_user_exists=True,
)
TCG = Accelerator("tcg", "KVM did not boot the guest within 10 s.", 1900.0)


def finding(facts: Facts, check: str) -> Finding:
    return next(found for found in examine(facts) if found.check == check)


def test_healthy_machine_has_no_fault() -> None:
    assert [found for found in examine(HEALTHY) if found.verdict is not Verdict.OK] == []


FAULTS = {
    "system": replace(HEALTHY, architecture="aarch64"),
    "python": replace(HEALTHY, python_version=(3, 10, 12)),
    "programs": replace(HEALTHY, programs={**HEALTHY.programs, "sqfstar": None}),
    "qemu": replace(HEALTHY, programs={**HEALTHY.programs, "qemu-system-x86_64": "6.2.0"}),
    "guest": replace(HEALTHY, guest=NO_GUEST),
    "accelerator": replace(HEALTHY, accelerator=None, accelerator_error="QEMU refused: no"),
    "memory": replace(HEALTHY, memory_available_bytes=100 * MIB),
    "disk": replace(HEALTHY, data_directory=replace(DIRECTORY, free_bytes=MIB)),
    "data directory": replace(HEALTHY, data_directory=replace(DIRECTORY, is_writable=False)),
    "port": replace(HEALTHY, has_port=False),
    "browser assets": replace(HEALTHY, missing_assets=("htmx.min.js",)),
}


@pytest.mark.parametrize("check", FAULTS)
def test_fault_is_found_with_a_cure(check: str) -> None:
    found = finding(FAULTS[check], check)
    assert found.verdict is Verdict.FAULT
    assert found.cure


def test_every_check_has_a_fault_here() -> None:
    only_warns = {"docker api"}
    assert {found.check for found in examine(HEALTHY)} == set(FAULTS) | only_warns
    assert len(CHECKS) == len(FAULTS) + len(only_warns)


@pytest.mark.parametrize(
    ("check", "facts", "said"),
    [
        pytest.param("python", replace(HEALTHY, sqlite_has_fts5=False), "FTS5", id="no fts5"),
        pytest.param(
            "qemu", replace(HEALTHY, qemu_user_exists=False), "SLIPWAY_QEMU_USER", id="no user"
        ),
        pytest.param(
            "qemu",
            replace(HEALTHY, programs={**HEALTHY.programs, "qemu-system-x86_64": None}),
            "apt-get install",
            id="no qemu",
        ),
        pytest.param(
            "qemu",
            replace(HEALTHY, programs={**HEALTHY.programs, "qemu-system-x86_64": ""}),
            "7.2",
            id="qemu prints no version",
        ),
        pytest.param(
            "data directory",
            replace(HEALTHY, data_directory=replace(DIRECTORY, owner_uid=1000)),
            "chown",
            id="other owner",
        ),
        pytest.param(
            "accelerator",
            replace(HEALTHY, guest=NO_GUEST, accelerator=None),
            "guest",
            id="no guest",
        ),
    ],
)
def test_other_fault_of_a_check_is_told_apart(check: str, facts: Facts, said: str) -> None:
    found = finding(facts, check)
    assert found.verdict is Verdict.FAULT
    assert said in f"{found.text} {found.cure}"


@pytest.mark.parametrize(
    ("facts", "cure"),
    [
        pytest.param(replace(HEALTHY, accelerator=TCG), "nested", id="never boots"),
        pytest.param(
            replace(HEALTHY, accelerator=TCG, kvm_is_accessible=False), "group kvm", id="permission"
        ),
        pytest.param(replace(HEALTHY, accelerator=TCG, kvm_exists=False), "firmware", id="missing"),
    ],
)
def test_software_emulation_warns_with_boot_time_and_reason(facts: Facts, cure: str) -> None:
    found = finding(facts, "accelerator")
    assert found.verdict is Verdict.WARNING
    assert "KVM did not boot the guest within 10 s; guest booted in 1900 ms" in found.text
    assert cure in found.cure


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("memory", replace(HEALTHY, memory_available_bytes=GIB)),
        ("disk", replace(HEALTHY, data_directory=replace(DIRECTORY, free_bytes=GIB))),
        ("data directory", replace(HEALTHY, data_directory=replace(DIRECTORY, mode=0o755))),
    ],
)
def test_scarce_or_open_is_a_warning(check: str, facts: Facts) -> None:
    found = finding(facts, check)
    assert found.verdict is Verdict.WARNING
    assert found.cure


def test_running_engine_is_named_and_is_no_port_fault() -> None:
    found = finding(replace(HEALTHY, engine=EngineAddress(7, "http://127.0.0.1:8080")), "port")
    assert found.verdict is Verdict.OK
    assert "http://127.0.0.1:8080 (process 7)" in found.text


def test_missing_data_directory_is_fine_before_the_first_start() -> None:
    fresh = replace(DIRECTORY, mode=None, owner_uid=None)
    found = finding(replace(HEALTHY, data_directory=fresh), "data directory")
    assert found.verdict is Verdict.OK


def test_missing_programs_name_their_packages() -> None:
    facts = replace(HEALTHY, programs={**HEALTHY.programs, "mkfs.ext4": None, "sqfstar": None})
    assert finding(facts, "programs").cure.endswith("e2fsprogs squashfs-tools")


def test_an_open_docker_api_is_a_warning() -> None:
    assert finding(HEALTHY, "docker api").verdict is Verdict.OK
    found = finding(replace(HEALTHY, docker_tcp="127.0.0.1:2375"), "docker api")
    assert found.verdict is Verdict.WARNING
    assert "127.0.0.1:2375" in found.text
    assert "SLIPWAY_DOCKER_TCP" in found.cure
