"""`slipway guest build`: a LinuxKit file becomes kernel and initrd."""

import argparse
import asyncio
import time
from pathlib import Path

from app.cli.configuration import read_settings
from app.core.units import MIB
from app.storage.data_directory import make_data_directory


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `guest build`."""
    guest = commands.add_parser("guest", help="the system in the micro-VM")
    actions = guest.add_subparsers(metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="make kernel and initrd; nothing to do if the inputs have not changed",
        description="Makes kernel and initrd from a LinuxKit YAML file.",
    )
    build.add_argument("file", nargs="?", type=Path, help="default: the guest that Slipway ships")
    build.add_argument(
        "--output", type=Path, metavar="DIRECTORY", help="also copy kernel and initrd there"
    )
    build.add_argument("--name", help="first part of the copies' names (default: the file's)")
    build.add_argument(
        "--refresh", action="store_true", help="look for a newer kernel package than last time"
    )
    build.set_defaults(run=run_build)


def run_build(options: argparse.Namespace) -> int:
    """Build, say where it lies, and copy it if asked to."""
    from app.guest.image import build_guest, export_guest
    from app.resources import guest_dir

    file: Path = options.file or guest_dir() / "slipway.yml"
    data_dir = read_settings().data_dir
    make_data_directory(data_dir)
    started_at = time.monotonic()
    image = asyncio.run(
        build_guest(
            file,
            cache_dir=data_dir / "guest",
            agent_source_dir=guest_dir() / "agent",
            progress=lambda line: print(line, flush=True),
            refresh=options.refresh,
        )
    )
    initrd_mib = image.initrd.stat().st_size / MIB
    print(f"kernel {image.kernel_version}: {image.kernel}")
    print(f"initrd ({initrd_mib:.1f} MiB): {image.initrd}")
    print(f"command line: {image.cmdline}")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        for path in export_guest(image, options.name or file.stem, options.output):
            print(f"wrote {path}")
    print(f"done in {time.monotonic() - started_at:.1f} s")
    return 0
