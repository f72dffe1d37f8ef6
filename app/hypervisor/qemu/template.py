"""Templates: what one fits, and how a later engine knows it again. Functions here block."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from app.core.errors import CorruptData, InvalidArgument
from app.domain.sizing import MEMORY_BLOCK_BYTES
from app.hypervisor.port import VmSpec
from app.hypervisor.qemu.arguments import MAX_MEMORY_BYTES, device_layout
from app.hypervisor.qemu.rundir import spec_from_json
from app.hypervisor.qemu.saved import SavedFiles, SavedMark, find_held
from app.hypervisor.steps import run_whole

log = logging.getLogger(__name__)

RECORDS_NAME = "templates"


class QemuTemplate:
    """A saved VM in two sealed anonymous files."""

    def __init__(
        self, spec: VmSpec, key: str, files: SavedFiles, on_closed: Callable[[str], None]
    ) -> None:
        self._spec = spec
        self._key = key
        self.files = files
        self._on_closed = on_closed

    @property
    def spec(self) -> VmSpec:
        """What the saved VM was made from."""
        return self._spec

    @property
    def key(self) -> str:
        """See `template_key`."""
        return self._key

    @property
    def memory_used_bytes(self) -> int:
        """Pages that the two files occupy."""
        return self.files.used_bytes

    async def close(self) -> None:
        """Close our descriptors; clones keep theirs."""
        await run_whole(self.files.close)
        self._on_closed(self._spec.id)


def template_key(spec: VmSpec, *, accelerator: str, version: str) -> str:
    """Fingerprint of all that a clone must share with its template.

    Kernel and initrd count by name, size and time of change: they are never changed in place.
    """
    files = []
    for path in (spec.kernel, spec.initrd):
        try:
            status = path.stat()
            files.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            files.append((str(path), -1, -1))
    values = [
        *(files, spec.cmdline, spec.vcpus, spec.memory_bytes),
        *(accelerator, version, device_layout()),
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def check_fits(template: QemuTemplate, spec: VmSpec) -> None:
    """Check the shape of a clone.

    Raises:
        InvalidArgument: It is not the template's.
    """
    own = template.spec
    for name in ("kernel", "initrd", "cmdline", "vcpus"):
        if getattr(spec, name) != getattr(own, name):
            raise InvalidArgument(f"VM {spec.id}: its {name} is not the template's", field=name)
    plugged = spec.memory_bytes - own.memory_bytes
    if plugged < 0 or plugged % MEMORY_BLOCK_BYTES or spec.memory_bytes > MAX_MEMORY_BYTES:
        raise InvalidArgument(
            f"VM {spec.id}: {spec.memory_bytes} bytes of memory are not the template's "
            f"{own.memory_bytes} and whole blocks of {MEMORY_BLOCK_BYTES}, at most "
            f"{MAX_MEMORY_BYTES}",
            field="memory_bytes",
        )
    if spec.for_template:
        raise InvalidArgument(f"VM {spec.id}: a clone can't be saved", field="for_template")


def check_usable(template: QemuTemplate, key: str) -> None:
    """Check that clones of it are safe and current.

    Raises:
        CorruptData: They are not: it is closed or not sealed, or kernel or QEMU have changed.
    """
    if not template.files.is_sealed:
        raise CorruptData(f"The template {template.key[:12]} is closed or not sealed")
    if template.key != key:
        raise CorruptData(
            f"The template {template.key[:12]} is of another kernel, initrd or QEMU than there is"
        )


def write_record(run_root: Path, template: QemuTemplate) -> None:
    """Record how it is known again; without a record it is only lost with the engine."""
    directory = run_root / RECORDS_NAME
    values = {
        "key": template.key,
        "spec": asdict(template.spec),
        "mark": template.files.mark().to_json(),
    }
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = directory / f"{template.spec.id}.new"
        temporary.write_text(json.dumps(values, default=str))
        temporary.replace(directory / f"{template.spec.id}.json")
    except OSError as exc:
        log.warning("The template is not recorded for a later engine: %s", exc)


def remove_record(run_root: Path, template_id: str) -> None:
    """Forget it."""
    with contextlib.suppress(OSError):
        (run_root / RECORDS_NAME / f"{template_id}.json").unlink(missing_ok=True)


def regain(
    run_root: Path,
    pids: list[int],
    *,
    known: set[str],
    current_key: Callable[[VmSpec], str],
    on_closed: Callable[[str], None],
) -> list[QemuTemplate]:
    """Templates of records whose files a process still holds; other records are removed."""
    found = []
    directory = run_root / RECORDS_NAME
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
        if path.stem in known:
            continue
        try:
            values = json.loads(path.read_text())
            spec, key = spec_from_json(values["spec"]), str(values["key"])
            mark = SavedMark.from_json(values["mark"])
        except (OSError, ValueError, TypeError, KeyError) as exc:
            log.warning("The record of template %s is not readable: %s", path.stem, exc)
            remove_record(run_root, path.stem)
            continue
        files = None
        if current_key(spec) == key:
            files = next((held for pid in pids if (held := find_held(pid, mark))), None)
        if files is None:
            remove_record(run_root, path.stem)
        else:
            found.append(QemuTemplate(spec, key, files, on_closed))
    return found
