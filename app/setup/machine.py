"""The machine below the checkout: distribution, architecture, Python, Debian packages."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from app.setup.packages import DISTRIBUTIONS, SUPPORTED, Distribution
from app.setup.steps import SetupFailed, announce, run_command, step

OS_RELEASE = Path("/etc/os-release")
APT_LISTS = Path("/var/lib/apt/lists")
APT_LOCK_TIMEOUT_S = 120
APT_TIMEOUT_S = 900
FREE_DISK_NEEDED_BYTES = 2 * 1024**3  # packages 600 MB, environment 250 MB, guest 150 MB, room
APT_ADVICE = (
    "Check the network and that no other package manager runs, then run the command again; "
    "or install the packages yourself with: {command}"
)


def parse_os_release(text: str) -> dict[str, str]:
    """Fields of os-release(5), unquoted; lines without "=" and comments are passed over."""
    fields = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            fields[key] = value.strip("\"'")
    return fields


def find_distribution(os_release: str, architecture: str) -> Distribution:
    """The supported distribution that the machine runs.

    Raises:
        SetupFailed: Another system or architecture.
    """
    if architecture != "x86_64":
        raise SetupFailed(
            f"This machine's architecture is {architecture}; Slipway runs on x86_64 only.",
            f"Use an x86_64 machine with one of: {SUPPORTED}.",
        )
    fields = parse_os_release(os_release)
    key = f"{fields.get('ID', '')} {fields.get('VERSION_ID', '')}".strip()
    try:
        return DISTRIBUTIONS[key]
    except KeyError:
        name = fields.get("PRETTY_NAME") or key or "an unknown system"
        raise SetupFailed(
            f"This machine runs {name}, for which the set-up knows no package names.",
            f"Use one of: {SUPPORTED}; or install the wheel by hand (docs/guide/install-wheel.md).",
        ) from None


def this_distribution() -> Distribution:
    """`find_distribution` for the machine that this runs on."""
    text = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.exists() else ""
    return find_distribution(text, platform.machine())


def check_free_disk(path: Path) -> None:
    """Refuse before half is installed.

    Raises:
        SetupFailed: Less than FREE_DISK_NEEDED_BYTES are free.
    """
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < FREE_DISK_NEEDED_BYTES:
        raise SetupFailed(
            f"{path} has {free_bytes // 1024**2} MiB free; "
            f"the first set-up needs {FREE_DISK_NEEDED_BYTES // 1024**2} MiB.",
            "Free disk space, then run the command again.",
        )


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of the Debian packages that are not installed, in the order given."""
    names = list(names)
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,  # fails when one is unknown, and still lists the others
    )
    installed = {
        line.split()[1] for line in done.stdout.splitlines() if line.startswith("installed ")
    }
    return [name for name in names if name not in installed]


def _apt_command(arguments: list[str]) -> list[str]:
    argv = ["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={APT_LOCK_TIMEOUT_S}", *arguments]
    if os.geteuid() == 0:
        return argv
    if shutil.which("sudo") is None:
        raise SetupFailed(
            "Packages are missing, you are not root, and sudo is not installed.",
            f"As root, run: apt-get {' '.join(arguments)}",
        )
    return ["sudo", *argv]


def install_packages(names: list[str]) -> str:
    """Install Debian packages without recommended ones; returns what was done.

    Raises:
        SetupFailed: No root and no sudo, no network, a lock, or a package that does not exist.
    """
    missing = missing_packages(names)
    if not missing:
        if not has_package_lists():  # the guest's kernel is found by them
            _apt(["update"], what="Reading the package lists", repair="apt-get update")
        return f"all {len(names)} present"
    announce("Debian packages", f"installing {', '.join(missing)}")
    install = ["install", "--no-install-recommends", *missing]
    command = " ".join(["apt-get", *install])
    _apt(["update"], what="Reading the package lists", repair=command)
    _apt(install, what="Installing Debian packages", repair=command)
    still_missing = missing_packages(names)
    if still_missing:
        raise SetupFailed(
            f"Still not installed: {', '.join(still_missing)}", APT_ADVICE.format(command=command)
        )
    return f"installed {len(missing)}"


def has_package_lists() -> bool:
    """Whether apt knows any package; images of containers come without lists."""
    return any(APT_LISTS.glob("*_Packages*"))


def _apt(arguments: list[str], *, what: str, repair: str) -> None:
    run_command(
        _apt_command(arguments),
        what=what,
        advice=APT_ADVICE.format(command=repair),
        timeout_s=APT_TIMEOUT_S,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )


def set_up_machine(root: Path, *, for_tests: bool) -> None:
    """Check the system and install what is missing.

    Raises:
        SetupFailed: See the parts.
    """
    distribution = this_distribution()
    names = list(distribution.run)
    if for_tests:
        names += distribution.test
    if importlib.util.find_spec("ensurepip") is None and not (root / ".venv/bin/pip").exists():
        if Path(sys.executable).resolve().parent != Path("/usr/bin"):
            raise SetupFailed(
                f"{sys.executable} lacks the module ensurepip, so no environment can be made.",
                f"Use the system's Python: install {distribution.venv} and run again.",
            )
        names.append(distribution.venv)
    if not (root / ".venv").exists():
        check_free_disk(root)
    step("Debian packages", lambda: install_packages(names))
