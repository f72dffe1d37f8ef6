"""`slipway stop --all`, `uninstall` and `unit`: the life of an installation."""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli.configuration import read_settings
from app.core.errors import Conflict, PermissionDenied, SlipwayError, Unavailable
from app.domain.vm import VmEndReason
from app.settings import Settings
from app.storage.data_directory import LOCK_NAME, DataDirectoryLock, find_engine

UNIT = Path("/etc/systemd/system/slipway.service")
UNIT_USER = "slipway"
UNIT_TIMEOUT_S = 120
VM_GRACE_S = 5.0
INSTALLED_LAUNCHER = "/opt/slipway/.venv/bin/slipway"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `stop`, `uninstall` and `unit`."""
    stop = commands.add_parser("stop", help="stop every container, also without an engine")
    stop.add_argument("--all", action="store_true", required=True, help="all of them")
    stop.add_argument(
        "--time", type=int, metavar="SECONDS", help="grace before SIGKILL (default: each one's own)"
    )
    stop.set_defaults(run=run_stop)
    uninstall = commands.add_parser(
        "uninstall", help="end all VMs and remove the data directory with everything in it"
    )
    uninstall.add_argument("--yes", action="store_true", help="don't ask")
    uninstall.add_argument(
        "--service", action="store_true", help="also remove the systemd unit and its user"
    )
    uninstall.set_defaults(run=run_uninstall)
    unit = commands.add_parser("unit", help="print a systemd unit for this installation")
    unit.set_defaults(run=run_unit)


def run_stop(options: argparse.Namespace) -> int:
    """Ask the engine that runs, or be one for as long as it takes; returns 1 if one resisted."""
    from app.cli.stopping import stop_by_engine, stop_by_ourselves

    settings = read_settings()
    if not settings.data_dir.is_dir():
        print(f"There is no data directory {settings.data_dir}: nothing runs.")
        return 0
    engine = find_engine(settings.data_dir)
    if engine is not None:
        outcomes = asyncio.run(stop_by_engine(settings, engine, grace_s=options.time))
    else:
        with DataDirectoryLock.take(settings.data_dir):
            outcomes = asyncio.run(stop_by_ourselves(settings, grace_s=options.time))
    for name, fault in sorted(outcomes.items()):
        print(f"{name}: {fault or 'stopped'}")
    failed = sum(bool(fault) for fault in outcomes.values())
    print(
        f"{len(outcomes) - failed} stopped, {failed} failed." if outcomes else "None was running."
    )
    return 1 if failed else 0


def _check_is_ours(data_dir: Path) -> None:
    """Never remove a directory that no engine has used, whatever the settings say.

    Raises:
        Conflict: It lacks the marks of a data directory.
    """
    if (data_dir / LOCK_NAME).is_file() and data_dir.resolve() not in (Path("/"), Path.home()):
        return
    raise Conflict(
        f"{data_dir} is no data directory of Slipway: nothing was removed.",
        advice="Set SLIPWAY_DATA_DIR to the directory that the engine used.",
    )


def _confirm(data_dir: Path, *, service: bool) -> bool:
    print(f"This ends every VM of {data_dir} and removes that directory:")
    print("containers, images, logs, accounts, all of it.")
    if service:
        print(f"It also removes {UNIT} and the user {UNIT_USER}.")
    try:
        return input("Type yes to go on: ").strip() == "yes"
    except EOFError:
        return False


def run_uninstall(options: argparse.Namespace) -> int:
    """End VMs, remove the data directory, and with --service unit and user."""
    settings = read_settings()
    if options.service and os.geteuid() != 0:
        raise PermissionDenied("Removing the service needs root.", advice="Repeat with sudo.")
    if settings.data_dir.exists():
        _check_is_ours(settings.data_dir)
    if not options.yes and not _confirm(settings.data_dir, service=options.service):
        print("Nothing was removed.")
        return 1
    if options.service:
        _systemctl(["disable", "--now", UNIT.name])
    if settings.data_dir.exists():
        _remove_data(settings)
    else:
        print(f"There is no data directory {settings.data_dir}.")
    if options.service:
        _remove_service()
    return 0


def _remove_data(settings: Settings) -> None:
    """Raises Conflict while an engine runs; nothing is removed then."""
    with DataDirectoryLock.take(settings.data_dir):
        ended = asyncio.run(_end_vms(settings))
        print(f"Ended {ended} VMs.")
        try:
            shutil.rmtree(settings.data_dir)
        except OSError as exc:
            raise Unavailable(
                f"{exc.filename} can't be removed: {exc.strerror}.",
                advice="Correct the permissions and repeat, or remove the directory by hand.",
            ) from exc
    print(f"Removed {settings.data_dir}.")


async def _end_vms(settings: Settings) -> int:
    from app.main import build_hypervisor

    hypervisor = build_hypervisor(settings, None)
    try:
        vms = await hypervisor.adopt()
        for vm in vms:
            await vm.stop(VmEndReason.STOPPED, grace_s=VM_GRACE_S)
            await vm.discard()
    finally:
        await hypervisor.close()
    return len(vms)


def _remove_service() -> None:
    UNIT.unlink(missing_ok=True)
    _systemctl(["daemon-reload"])
    if shutil.which("userdel"):
        subprocess.run(["userdel", UNIT_USER], capture_output=True, timeout=60, check=False)
    print(f"Removed {UNIT} and the user {UNIT_USER}.")


def _systemctl(arguments: Sequence[str]) -> None:
    """Best effort: a machine without systemd, or without our unit, has nothing to stop."""
    if shutil.which("systemctl") is None:
        return
    done = subprocess.run(
        ["systemctl", *arguments],
        capture_output=True,
        text=True,
        timeout=UNIT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        print(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", file=sys.stderr)


def run_unit(_: argparse.Namespace) -> int:
    """Print packaging/slipway.service with this installation's path in it."""
    from app.resources import unit_file

    launcher = Path(sys.argv[0]).resolve()
    if not os.access(launcher, os.X_OK):
        raise SlipwayError(f"{launcher} is no program that systemd could start.")
    print(
        unit_file().read_text(encoding="utf-8").replace(INSTALLED_LAUNCHER, str(launcher)), end=""
    )
    return 0
