"""`slipway backup` and `slipway restore`."""

import argparse
import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from app import __version__
from app.cli.configuration import read_settings
from app.core.errors import Conflict, SlipwayError
from app.storage.data_directory import DataDirectoryLock, find_engine

# Run directories, what can be built again, and space kept back.
EXCLUDED = frozenset({"v", "guest", "images/ingest", "ballast"})


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `backup` and `restore`."""
    backup = commands.add_parser("backup", help="save the data directory into one file")
    backup.add_argument("file", type=Path, help="tar file to write; must not exist")
    backup.add_argument(
        "--leave-out-running",
        action="store_true",
        help="save all but the disks of containers that run, instead of refusing",
    )
    backup.set_defaults(run=run_backup)
    restore = commands.add_parser("restore", help="make an empty data directory from a backup")
    restore.add_argument("file", type=Path, help="file that `slipway backup` wrote")
    restore.set_defaults(run=run_restore)


async def _disks_in_use(data_dir: Path) -> dict[str, str]:
    """Disk of each container that has a VM, relative to the data directory -> the container's name.

    Also of one whose end is recorded and whose VM is still saving the disk.
    """
    from app.db.database import Database
    from app.db.repositories.containers import ContainerRepository
    from app.domain.container import ContainerState
    from app.storage.scratch import ScratchDisks

    path = data_dir / "slipway.db"
    if not path.exists():
        return {}
    database = Database(path)
    async with AsyncExitStack() as stack:
        await database.open()
        stack.push_async_callback(database.close)
        async with database.read() as session:
            containers = await ContainerRepository(session).list()
    with_vm = await asyncio.to_thread(_containers_with_vm, data_dir / "v")
    disks = ScratchDisks(data_dir / "scratch")
    return {
        disks.path(each.id).relative_to(data_dir).as_posix(): each.name
        for each in containers
        if each.is_live or each.state is ContainerState.RESTARTING or each.id in with_vm
    }


def _containers_with_vm(run_root: Path) -> set[str]:
    """Ids by the labels of the VMs whose end is not known."""
    from app.hypervisor.qemu.rundir import RunDirectory
    from app.services.launch import CONTAINER_LABEL

    found = set()
    for path in run_root.iterdir() if run_root.is_dir() else ():
        with suppress(SlipwayError):  # one that is just being made or removed
            directory = RunDirectory(path)
            if directory.read_exit() is None:
                found.add(directory.read_spec().labels.get(CONTAINER_LABEL, ""))
    return found


def run_backup(options: argparse.Namespace) -> int:
    """Save beside a running engine, or with the lock held so that none starts meanwhile."""
    from app.services.backup import BackupScope, create_backup

    data_dir = read_settings().data_dir
    target: Path = options.file.absolute()
    with _Hold(data_dir):
        before = asyncio.run(_disks_in_use(data_dir))
        label = create_backup(
            BackupScope(data_dir, EXCLUDED, before),
            target,
            slipway_version=__version__,
            leave_out_running=options.leave_out_running,
        )
        started = set(asyncio.run(_disks_in_use(data_dir)).values()) - set(before.values())
    if started:
        target.unlink()
        raise Conflict(
            f"Started while the backup was made: {', '.join(sorted(started))}.",
            advice="Run it again.",
        )
    print(f"Saved {data_dir} to {target} ({target.stat().st_size / 1024**2:.1f} MiB).")
    _tell_left_out(label.left_out)
    return 0


class _Hold:
    """The data directory's lock if no engine has it; nothing if one has."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock: DataDirectoryLock | None = None

    def __enter__(self) -> None:
        if self._data_dir.is_dir() and find_engine(self._data_dir) is None:
            self._lock = DataDirectoryLock.take(self._data_dir)

    def __exit__(self, *exc_info: object) -> None:
        if self._lock is not None:
            self._lock.close()


def run_restore(options: argparse.Namespace) -> int:
    """Restore into the data directory that the settings name."""
    from app.services.backup import restore_backup

    data_dir = read_settings().data_dir
    label = restore_backup(options.file.absolute(), data_dir.absolute())
    print(f"Restored {data_dir} as it was at {label.created_at} (Slipway {label.slipway_version}).")
    _tell_left_out(label.left_out)
    print("Start it with: slipway serve")
    return 0


def _tell_left_out(names: tuple[str, ...]) -> None:
    if names:
        print(f"Without the disks of containers that ran: {', '.join(names)}.")
