"""Kernel modules: which files a list of module names needs, and in which order they load.

Works from the modules themselves (their ELF section .modinfo), because `modules.dep` is made by
depmod when a kernel package is installed, and ours is only unpacked.
"""

import gzip
import lzma
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import zstandard

from app.core.errors import CorruptData, InvalidArgument

_SUFFIX = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")
_MAX_MODULE_BYTES = 64 * 1024 * 1024
_ELF64_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SHT_NOBITS = 8


@dataclass(frozen=True)
class Module:
    """A module that is to be loaded.

    Attributes:
        name: As the kernel spells it, with underscores.
        path: Where it lies in the guest, relative to the root, without a compression suffix.
        data: The file as the kernel takes it: decompressed, signature kept.
    """

    name: str
    path: str
    data: bytes


@dataclass(frozen=True)
class _ModuleInfo:
    depends: tuple[str, ...]
    pre_soft_depends: tuple[str, ...]


def module_name(text: str) -> str:
    """The kernel's spelling of a module name: hyphens count as underscores."""
    return text.replace("-", "_")


class ModuleTree:
    """The unpacked `lib/modules/<release>` directory of one kernel."""

    def __init__(self, directory: Path) -> None:
        """Index the tree.

        Args:
            directory: `.../lib/modules/<release>`, of a trusted package.

        Raises:
            CorruptData: It holds no modules.
        """
        self.release = directory.name
        self._files: dict[str, Path] = {}
        self._directory = directory
        for path in sorted(directory.rglob("*.ko*")):
            if _SUFFIX.search(path.name) and path.is_file():
                self._files[module_name(_SUFFIX.sub("", path.name))] = path
        if not self._files:
            raise CorruptData(f"the kernel package has no modules in {directory}")
        builtin = directory / "modules.builtin"
        names = builtin.read_text().split() if builtin.is_file() else []
        self._builtin = {module_name(_SUFFIX.sub("", PurePosixPath(line).name)) for line in names}
        self._loaded: dict[str, Module] = {}

    def load_order(self, names: Iterable[str]) -> list[Module]:
        """Everything that must be loaded for `names`, dependencies first, each once.

        Names that are built into the kernel need nothing. A name with a `-` before it is passed
        over if the kernel lacks it. A soft dependency ("pre") is taken where a module of that name
        exists: the guest has no modprobe to look for it later.

        Raises:
            InvalidArgument: A name is neither a module nor built in, or modules need each other.
            CorruptData: A module file cannot be read.
        """
        order: dict[str, Module] = {}
        for text in names:
            name = module_name(text.removeprefix("-"))
            if name in self._files or not text.startswith("-"):
                self._visit(name, order, ())
        return list(order.values())

    def _visit(self, name: str, order: dict[str, Module], wanted_by: tuple[str, ...]) -> None:
        if name in order or name in self._builtin:
            return
        if name in wanted_by:
            raise InvalidArgument(f"modules need each other: {' -> '.join((*wanted_by, name))}")
        if name not in self._files:
            chain = f" (needed by {wanted_by[-1]})" if wanted_by else ""
            raise InvalidArgument(
                f"kernel {self.release} has no module {name}{chain}",
                field="files",
                advice="Correct the name in the module list of the guest's YAML file.",
            )
        module = self._module(name)
        info = _module_info(module)
        for soft in info.pre_soft_depends:
            if soft in self._files:
                self._visit(soft, order, (*wanted_by, name))
        for dependency in info.depends:
            self._visit(dependency, order, (*wanted_by, name))
        order[name] = module

    def _module(self, name: str) -> Module:
        if name not in self._loaded:
            file = self._files[name]
            relative = file.relative_to(self._directory).as_posix()
            plain = _SUFFIX.sub(".ko", relative)
            path = f"lib/modules/{self.release}/{plain}"
            self._loaded[name] = Module(name, path, _decompress(file))
        return self._loaded[name]


def _decompress(file: Path) -> bytes:
    data = file.read_bytes()
    try:
        match file.suffix:
            case ".xz":
                data = lzma.decompress(data)
            case ".gz":
                data = gzip.decompress(data)
            case ".zst":
                decompressor = zstandard.ZstdDecompressor()
                data = decompressor.decompress(data, max_output_size=_MAX_MODULE_BYTES)
            case _:
                pass
    except (lzma.LZMAError, zlib.error, OSError, EOFError, zstandard.ZstdError) as exc:
        raise CorruptData(f"kernel module {file.name} cannot be decompressed: {exc}") from exc
    return data


def _module_info(module: Module) -> _ModuleInfo:
    values: dict[str, list[str]] = {}
    for key, value in _modinfo(module.data, module.name):
        values.setdefault(key, []).append(value)
    depends = [module_name(d) for line in values.get("depends", []) for d in line.split(",") if d]
    soft = [module_name(s) for line in values.get("softdep", []) for s in _pre_names(line)]
    return _ModuleInfo(tuple(depends), tuple(soft))


def _pre_names(softdep: str) -> Iterator[str]:
    """Names after "pre:" in a soft dependency such as `pre: a b post: c`."""
    is_pre = False
    for word in softdep.split():
        if word.endswith(":"):
            is_pre = word == "pre:"
        elif is_pre:
            yield word


def _modinfo(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    section = _sections(data, name).get(b".modinfo", b"")
    for item in section.split(b"\0"):
        key, separator, value = item.partition(b"=")
        if separator:
            yield key.decode(errors="replace"), value.decode(errors="replace")


def _sections(data: bytes, name: str) -> Mapping[bytes, bytes]:
    """Sections of a 64-bit little-endian ELF object by name (ELF-64 object file format)."""
    try:
        header = _ELF64_HEADER.unpack_from(data)
        if header[0][:6] != b"\x7fELF\x02\x01":
            raise CorruptData(f"kernel module {name} is no 64-bit ELF object")
        table_offset, entry_size, count, names_index = header[6], header[11], header[12], header[13]
        headers = [
            _SECTION_HEADER.unpack_from(data, table_offset + index * entry_size)
            for index in range(count)
        ]
        names_offset = headers[names_index][4]
        return {
            _c_string(data, names_offset + h[0]): data[h[4] : h[4] + h[5]]
            for h in headers
            if h[1] != _SHT_NOBITS
        }
    except (struct.error, IndexError) as exc:
        raise CorruptData(f"kernel module {name} is damaged: {exc}") from exc


def _c_string(data: bytes, offset: int) -> bytes:
    end = data.find(b"\0", offset)
    return data[offset:end]
