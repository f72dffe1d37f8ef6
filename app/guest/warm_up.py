"""The layer of the pool's throw-away container: a disk as image layers are, with `warm-up`."""

import asyncio
import shutil
from pathlib import Path

from app.core.errors import PrerequisiteMissing
from app.guest.commands import CommandFailed, run_command

WARM_UP_COMMAND = "warm-up"
_DIRECTORIES = (
    "bin", "dev", "etc", "proc", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/local",
    "usr/local/bin", "usr/local/sbin", "usr/sbin",
)  # fmt: skip
# As busybox has it, and in the last directory of PATH: a usual start looks in vain in some, and
# follows a link.
_LINK = "bin/warm-up"
_TEXTS = {"etc/hosts": "127.0.0.1\tlocalhost\n", "etc/warm-up": "cold\n"}
_PACK_TIMEOUT_S = 60.0
_ADVICE = "Install the package squashfs-tools (4.5 or later)."


async def pack_warm_up_layer(program: Path, directory: Path, *, source_date_epoch_s: int) -> bytes:
    """The disk with this static program in it, made in a directory that is thrown away.

    Raises:
        PrerequisiteMissing: No mksquashfs, or one that refuses.
        DeadlineExceeded: It took too long.
    """
    root, disk = directory / "warm-up-root", directory / "warm-up-layer"
    await asyncio.to_thread(_lay_out, root, program)
    try:
        # As image layers are made: the guest runs the same paths of squashfs for both.
        await run_command(
            ["mksquashfs", root, disk, "-comp", "lz4", "-no-fragments", "-reproducible",
             "-no-exports", "-noappend", "-all-root", "-no-xattrs", "-no-progress", "-quiet"],
            timeout_s=_PACK_TIMEOUT_S,
            advice=_ADVICE,
            # Stamps the file system and caps the times of all that is in it.
            environment={"SOURCE_DATE_EPOCH": str(source_date_epoch_s)},
        )  # fmt: skip
        return await asyncio.to_thread(disk.read_bytes)
    except CommandFailed as exc:
        raise PrerequisiteMissing(
            f"the layer that VMs warm up with cannot be packed: {exc.output}", advice=_ADVICE
        ) from exc


def _lay_out(root: Path, program: Path) -> None:
    """Fill the directory; modes are set apart from the umask, which is no input."""
    root.mkdir()
    for name in _DIRECTORIES:
        (root / name).mkdir()
        (root / name).chmod(0o1777 if name == "tmp" else 0o755)
    for name, text in _TEXTS.items():
        (root / name).write_text(text)
        (root / name).chmod(0o644)
    target = root / "warm-up"
    (root / _LINK).symlink_to("../warm-up")
    shutil.copyfile(program, target)
    target.chmod(0o755)
    root.chmod(0o755)
