"""The starter image: `busybox:latest`, made from this machine's own static busybox.

Gives a fresh installation something to run without any download. The same busybox gives the same
image id.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from app.core.errors import DeadlineExceeded, PrerequisiteMissing
from app.domain.image import Image, ImageConfig
from app.oci.store import ImageStore
from app.oci.streams import CHUNK_BYTES
from app.oci.tar_reader import EntryKind
from app.oci.tar_writer import END_MARK, padding, tar_header

STARTER_REFERENCE = "busybox:latest"
BUSYBOX_PATH = Path("/bin/busybox")
LIST_TIMEOUT_S = 10.0

PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CURE = "Install the package busybox-static."

_ELF_MAGIC = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_PT_INTERP = 3

_DIRECTORIES = (
    "bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run", "sbin", "sys", "tmp",
    "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/local/sbin", "usr/sbin", "var", "var/lib",
    "var/lib/postgresql", "var/log", "var/opt", "var/spool", "var/tmp", "var/www",
)  # fmt: skip
_MODES = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}
_LINKS = {"var/run": "/run", "usr/bin/env": "../../bin/busybox", "sbin/init": "../bin/busybox"}
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "postgres:x:70:70::/var/lib/postgresql:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": (
        "root:x:0:\ndaemon:x:1:\nbin:x:2:\nwww-data:x:33:\npostgres:x:70:\nnobody:x:65534:\n"
    ),
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox (this machine\'s own)"\n',
    "etc/profile": 'export PS1="\\u@\\h:\\w\\\\$ "\n',
}


async def import_starter(store: ImageStore, busybox: Path = BUSYBOX_PATH) -> Image:
    """Make and import `busybox:latest`; quick if the store has it already.

    Raises:
        PrerequisiteMissing: No busybox, or one that needs libraries from outside.
        CorruptData, ResourceExhausted: As ImageStore.import_stream.
    """
    program = await asyncio.to_thread(_read_static, busybox)
    applets = await _list_applets(busybox)
    built_at_s = int((await asyncio.to_thread(busybox.stat)).st_mtime)
    [image] = await store.import_stream(
        _stream(_rootfs(program, applets, built_at_s)),
        reference=STARTER_REFERENCE,
        config=ImageConfig(cmd=("sh",), env=(PATH_ENV,)),
        created=datetime.fromtimestamp(built_at_s, UTC),
    )
    return image


def _read_static(path: Path) -> bytes:
    try:
        program = path.read_bytes()
    except OSError as error:
        raise PrerequisiteMissing(
            f"the starter image needs {path}: {error.strerror}", advice=_CURE
        ) from error
    if not is_static_elf(program):
        raise PrerequisiteMissing(
            f"{path} is not a static program, so it can't run alone in an image", advice=_CURE
        )
    return program


def is_static_elf(program: bytes) -> bool:
    """Whether a 64-bit ELF program asks for no interpreter (System V ABI, program headers)."""
    if not program.startswith(_ELF_MAGIC) or len(program) < 64:
        return False
    (table,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    if size < 4 or table + size * count > len(program):
        return False
    types = [struct.unpack_from("<I", program, table + size * n)[0] for n in range(count)]
    return bool(types) and _PT_INTERP not in types


async def _list_applets(busybox: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        busybox, "--list", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(LIST_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise DeadlineExceeded(f"{busybox} --list gave no answer") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    names = sorted({name for name in output.decode("ascii", "replace").split() if "/" not in name})
    if process.returncode != 0 or "sh" not in names:
        raise PrerequisiteMissing(f"{busybox} has no shell among its applets", advice=_CURE)
    return [name for name in names if name != "busybox"]


def _rootfs(program: bytes, applets: list[str], mtime_s: int) -> Iterator[bytes]:
    for name in _DIRECTORIES:
        mode = _MODES.get(name, 0o755)
        yield tar_header(name.encode(), EntryKind.DIRECTORY, mode=mode, mtime_s=mtime_s)
    yield from _file("bin/busybox", program, 0o755, mtime_s)
    links = {f"bin/{name}": "busybox" for name in applets} | _LINKS
    for name, target in links.items():
        yield tar_header(
            name.encode(), EntryKind.SYMLINK, mode=0o777, mtime_s=mtime_s, link=target.encode()
        )
    for name, text in _FILES.items():
        yield from _file(name, text.encode(), 0o644, mtime_s)
    yield END_MARK


def _file(name: str, content: bytes, mode: int, mtime_s: int) -> Iterator[bytes]:
    size = len(content)
    yield tar_header(name.encode(), EntryKind.FILE, mode=mode, mtime_s=mtime_s, size_bytes=size)
    for start in range(0, size, CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]
    yield padding(size)


async def _stream(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
