"""Turns one layer blob into a squashfs disk, by `sqfstar`, without unpacking anything."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from app.core.errors import CorruptData, PrerequisiteMissing, ResourceExhausted, Unavailable
from app.domain.reference import Digest
from app.oci.compression import Compression, open_decompressed
from app.oci.layer_filter import filter_layer
from app.oci.layer_index import LayerIndex
from app.oci.limits import ImportLimits
from app.oci.streams import CHUNK_BYTES, CancelToken, FileRange, HashingSource, Sink, Source
from app.oci.tar_reader import TarReader

DISK_SECTOR_BYTES = 4096
_UNHASHED = Digest("0" * 64)  # stands in where the digest is known or not asked for
PIPE_BYTES = 512 * 1024
NICENESS = 10  # containers go first
REAP_TIMEOUT_S = 10.0
MESSAGES_MAX_BYTES = 64 * 1024
_MESSAGE_MAX_CHARS = 1000
_DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class ScannedLayer:
    """What the first pass found.

    Attributes:
        diff_id: Digest of the uncompressed tar.
        blob_digest, blob_bytes: Of the blob as it came.
        unpacked_bytes: Size of the uncompressed tar.
    """

    index: LayerIndex
    diff_id: Digest
    blob_digest: Digest
    blob_bytes: int
    unpacked_bytes: int


def scan_layer(
    source: Source,
    compression: Compression,
    *,
    what: str,
    limits: ImportLimits,
    token: CancelToken,
    tee: Sink | None = None,
    blob_digest: Digest | None = None,
    on_bytes: Callable[[int], None] | None = None,
    needs_end_mark: bool = False,
) -> ScannedLayer:
    """Read a layer once: judge its entries and compute its digests.

    `tee` receives the blob's bytes as they come, `on_bytes` their count; `blob_digest` saves
    hashing a blob that has been hashed before; for `needs_end_mark` see TarReader.

    Raises:
        CorruptData, InvalidArgument: The layer is refused.
    """
    blob = HashingSource(
        source, token=token, what=what, tee=tee, digest=blob_digest, on_bytes=on_bytes
    )
    is_plain = compression is Compression.NONE
    plain = HashingSource(
        open_decompressed(blob, compression, what=what),
        token=token,
        what=what,
        digest=_UNHASHED if is_plain else None,
        limit_bytes=limits.layer_bytes,
    )
    index = LayerIndex(what=what, limits=limits)
    for entry in TarReader(plain, what=what, needs_end_mark=needs_end_mark):
        token.check()
        index.add(entry)
    diff_id = plain.drain()
    found = blob.drain()
    ids = (found if is_plain else diff_id, found)
    return ScannedLayer(index, *ids, blob.count_bytes, plain.count_bytes)


def convert_layer(
    file: BinaryIO,
    scanned: ScannedLayer,
    compression: Compression,
    target: Path,
    *,
    what: str,
    token: CancelToken,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Read a layer a second time and write its disk to `target`, which must not exist.

    The disk is a function of the layer's bytes alone, padded to 4096 bytes, and synced. After a
    failure `target` may hold rubbish: it belongs in a directory that is thrown away.

    Raises:
        CorruptData: The blob is no longer readable as in the first pass, or sqfstar refused it.
        ResourceExhausted: The disk is full.
        PrerequisiteMissing: No sqfstar.
    """
    blob = FileRange(file, 0, scanned.blob_bytes)
    plain = HashingSource(
        open_decompressed(blob, compression, what=what),
        token=token,
        what=what,
        digest=_UNHASHED,  # the first pass has verified it
        on_bytes=on_bytes,
    )
    reader = TarReader(plain, what=what)
    _run_sqfstar(filter_layer(reader, scanned.index), scanned.index, target, what, token)
    with target.open("r+b") as disk:
        size = disk.seek(0, os.SEEK_END)
        disk.truncate(-(-size // DISK_SECTOR_BYTES) * DISK_SECTOR_BYTES)
        os.fsync(disk.fileno())


def _sqfstar_command(index: LayerIndex, target: Path) -> list[str]:
    """The command for a reproducible disk.

    With fragments and duplicate checking together, 4.5.1 gives other bytes each time (its threads
    race); without fragments it is exact, faster, and 1.5 % larger.
    """
    root = index.root
    return [
        "sqfstar", "-comp", "lz4", "-no-fragments", "-reproducible",
        "-root-mode", f"{root.mode:04o}", "-root-uid", str(root.uid), "-root-gid", str(root.gid),
        "-no-progress", "-quiet", "-exit-on-error", "-mem", "128M", str(target),
    ]  # fmt: skip


def _sqfstar_environment(index: LayerIndex) -> dict[str, str]:
    """4.5.1 stamps the root directory with the present, whatever -root-time says.

    This variable sets the filesystem's time and caps all others; the newest time of the layer
    makes that harmless.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": str(index.newest_s),
    }


def _run_sqfstar(
    tar: Iterator[bytes], index: LayerIndex, target: Path, what: str, token: CancelToken
) -> None:
    with _open_messages() as messages:
        process = _start_sqfstar(
            _sqfstar_command(index, target), _sqfstar_environment(index), messages
        )
        try:
            token.on_cancel(process.kill)
            is_whole = _feed(process, tar)
            # No timeout: the caller's deadline kills it through the token.
            status = process.wait()
        finally:
            process.kill()
            process.wait(REAP_TIMEOUT_S)
        token.check()
        if status != 0 or not is_whole:
            raise _sqfstar_error(messages, status, what)


def _open_messages() -> IO[bytes]:
    """A bounded file in memory for sqfstar's words: a full disk must not swallow the reason."""
    file = os.fdopen(os.memfd_create("sqfstar", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.truncate(MESSAGES_MAX_BYTES)
    fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return file


def _start_sqfstar(
    command: list[str], environment: dict[str, str], messages: IO[bytes]
) -> "subprocess.Popen[bytes]":
    try:
        process = subprocess.Popen(
            command,
            pipesize=PIPE_BYTES,
            stdin=subprocess.PIPE,
            stdout=messages,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PrerequisiteMissing(
            "sqfstar, which turns image layers into disks, is not installed",
            advice="Install the package squashfs-tools (4.5 or later).",
        ) from error
    with contextlib.suppress(OSError):  # ended already: its status tells
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    return process


def _feed(process: "subprocess.Popen[bytes]", tar: Iterator[bytes]) -> bool:
    """Write everything to the process; False if it stopped reading (it has told why)."""
    pipe = process.stdin
    if pipe is None:
        raise Unavailable("sqfstar was started without a pipe")
    pending = bytearray()  # many small headers in one write
    try:
        for data in tar:
            if len(data) < CHUNK_BYTES // 8:
                pending += data
                if len(pending) < CHUNK_BYTES // 8:
                    continue
                data = b""
            if pending:
                pipe.write(pending)
                pending.clear()
            pipe.write(data)
        pipe.write(pending)
    except BrokenPipeError:
        return False
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return True


def _sqfstar_error(
    messages: IO[bytes], status: int, what: str
) -> CorruptData | ResourceExhausted | Unavailable:
    messages.seek(0)
    written = messages.read().rstrip(b"\0").decode("utf-8", "replace")
    text = " ".join(written.split())[-_MESSAGE_MAX_CHARS:]
    if any(words in text for words in _DISK_FULL_WORDS):
        return ResourceExhausted(
            f"{what}: no space left on the disk",
            advice="Remove unused images or containers, then import again.",
        )
    if status < 0:
        return Unavailable(f"{what}: sqfstar was killed by signal {-status}")
    return CorruptData(f"{what}: sqfstar refused it: {text or f'exit status {status}'}")
