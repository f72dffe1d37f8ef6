import os
from pathlib import Path

import pytest

from app.setup import machine
from app.setup.machine import find_distribution, install_packages, parse_os_release
from app.setup.packages import DISTRIBUTIONS
from app.setup.steps import SetupFailed

DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'


@pytest.mark.parametrize(
    ("text", "title"),
    [
        pytest.param(DEBIAN_12, "Debian 12", id="debian 12"),
        pytest.param('ID=debian\nVERSION_ID="13"\n', "Debian 13", id="debian 13"),
        pytest.param('VERSION_ID="24.04"\nID=ubuntu\n', "Ubuntu 24.04", id="ubuntu"),
    ],
)
def test_distribution_is_found(text: str, title: str) -> None:
    assert find_distribution(text, "x86_64").title == title


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(
            'ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora Linux 42"\n',
            "Fedora Linux 42",
            id="other",
        ),
        pytest.param("ID=debian\nVERSION_ID=11\n", "debian 11", id="too old"),
        pytest.param("", "an unknown system", id="no os-release"),
    ],
)
def test_other_system_is_named_with_the_supported_ones(text: str, named: str) -> None:
    with pytest.raises(SetupFailed, match=named) as failure:
        find_distribution(text, "x86_64")
    assert "Debian 12, Debian 13, Ubuntu 24.04" in failure.value.advice


def test_other_architecture_is_refused_by_name() -> None:
    with pytest.raises(SetupFailed, match="aarch64"):
        find_distribution(DEBIAN_12, "aarch64")


def test_os_release_comments_and_broken_lines_are_passed_over() -> None:
    assert parse_os_release("# x=1\nnonsense\nID='debian'\n") == {"ID": "debian"}


def test_every_distribution_can_build_test_and_boot() -> None:
    for distribution in DISTRIBUTIONS.values():
        assert "qemu-system-x86" in distribution.run
        assert any("chromium" in name for name in distribution.test)
        assert distribution.kernel.startswith("linux-image-")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own, to which tests add programs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def add_program(programs: Path, name: str, script: str) -> None:
    path = programs / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_packages_that_are_present_start_no_apt(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "APT_LISTS", tmp_path)
    (tmp_path / "mirror_Packages").write_text("")
    add_program(programs, "dpkg-query", "echo installed gcc; echo installed make")
    assert install_packages(["gcc", "make"]) == "all 2 present"


def test_missing_package_lists_are_fetched_for_the_guests_kernel(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "APT_LISTS", tmp_path / "empty")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    add_program(programs, "dpkg-query", "echo installed gcc")
    add_program(programs, "apt-get", f'echo "$@" >> {tmp_path}/calls')
    assert install_packages(["gcc"]) == "all 1 present"
    assert (tmp_path / "calls").read_text().strip().endswith("update")


def test_removed_package_with_left_configuration_counts_as_missing(programs: Path) -> None:
    add_program(programs, "dpkg-query", "echo config-files gcc; echo installed make; exit 1")
    assert machine.missing_packages(["gcc", "make"]) == ["gcc"]


def test_packages_without_root_and_sudo_say_what_root_has_to_run(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_program(programs, "dpkg-query", "exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupFailed, match="sudo is not installed") as failure:
        install_packages(["gcc"])
    assert failure.value.advice == "As root, run: apt-get update"


def test_packages_without_root_go_through_sudo(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_program(programs, "dpkg-query", f"[ -e {tmp_path}/done ] && echo installed gcc")
    add_program(programs, "sudo", f'echo "$@" >> {tmp_path}/calls; : > {tmp_path}/done')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install_packages(["gcc"]) == "installed 1"
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.startswith("apt-get")
    assert update.endswith("update")
    assert install.endswith("install --no-install-recommends gcc")


def test_failing_apt_shows_its_words_and_the_command(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_program(programs, "dpkg-query", "exit 1")
    add_program(
        programs, "apt-get", 'echo "E: Could not get lock /var/lib/dpkg/lock. It is held"; exit 100'
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SetupFailed, match="Could not get lock") as failure:
        install_packages(["gcc"])
    assert "apt-get install --no-install-recommends gcc" in failure.value.advice


def test_full_disk_is_found_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "FREE_DISK_NEEDED_BYTES", 1 << 60)
    with pytest.raises(SetupFailed, match="MiB free"):
        machine.check_free_disk(tmp_path)
