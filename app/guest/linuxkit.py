"""Reads a LinuxKit YAML file into what this release builds from it.

Everything is validated; what is valid and not honoured yet is refused, or warned about where
leaving it out changes nothing. The kernel and the agent have names of ours, since no registry has
them:

* `kernel.image: slipway/kernel` is the generic kernel package of the distribution that the build
  runs on; `slipway/kernel:PACKAGE` is that package of it.
* `init: [slipway/agent]` is the agent, built from its source.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from app.core.errors import InvalidArgument, Unsupported
from app.guest.cpio import Entry
from app.guest.linuxkit_schema import LINUXKIT, check_shape
from app.guest.yaml_nodes import Node, parse_yaml

AGENT_IMAGE = "slipway/agent"
KERNEL_IMAGE = "slipway/kernel"
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_MODE = re.compile(r"0?[0-7]{3,4}")
_NUMERAL = re.compile(r"[0-9]{1,10}")
# LinuxKit's defaults (docs/yaml.md, files).
_FILE_PERMISSIONS = 0o600
_DIRECTORY_PERMISSIONS = 0o700
_MAX_SOURCE_BYTES = 256 * 1024 * 1024
_MAX_FAULTS_SHOWN = 20
_KINDS = ("directory", "symlink", "contents", "source", "metadata")
_NEEDS_COMPONENT_IMAGES = ("onboot", "services", "onshutdown", "volumes")


@dataclass(frozen=True)
class LinuxKitFile:
    """A valid file, as far as this release honours it.

    Attributes:
        source: Name of the file, for messages.
        kernel_package: Distribution package, or None for the distribution's generic kernel.
        cmdline: Kernel command line, one line.
        files: What `files` puts into the root file system, contents read.
        warnings: Sentences on what was left out.
    """

    source: str
    kernel_package: str | None
    cmdline: str
    files: tuple[Entry, ...]
    warnings: tuple[str, ...]


def load_linuxkit(path: Path) -> LinuxKitFile:
    """Read, validate and interpret a file; `source` entries are read from beside it.

    Raises:
        InvalidArgument: It cannot be read or does not follow LinuxKit's schema; every fault is
            named with its line.
        Unsupported: It is right, and asks for what this release does not build.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise InvalidArgument(f"{path} cannot be read: {exc.strerror}") from exc
    root = parse_yaml(text, path.name)
    faults = check_shape(root, LINUXKIT)
    if faults:
        shown = [f"{path.name} line {line}: {fault}" for line, fault in sorted(faults)]
        raise InvalidArgument(
            "\n".join(shown[:_MAX_FAULTS_SHOWN]),
            advice="LinuxKit's YAML reference describes every key.",
        )
    return _Reader(path, text, root).read()


class _Reader:
    """Interprets a document that has the right shape."""

    def __init__(self, path: Path, text: bytes, root: Node) -> None:
        self._path = path
        self._text = text
        self._sections = _mapping(root)

    def read(self) -> LinuxKitFile:
        self._refuse_component_images()
        package, cmdline, warnings = self._kernel()
        self._check_init()
        if "trust" in self._sections:
            line = self._sections["trust"].line
            warnings.append(f"{self._path.name} line {line}: trust is accepted and has no effect")
        return LinuxKitFile(
            self._path.name, package, cmdline, tuple(self._files()), tuple(warnings)
        )

    def _refuse_component_images(self) -> None:
        for name in _NEEDS_COMPONENT_IMAGES:
            section = self._sections.get(name)
            if section is not None and section.value:
                raise Unsupported(
                    f"{self._at(section)}: {name} is not honoured by this release",
                    advice="Take the section out: the guest runs the agent alone.",
                )

    def _kernel(self) -> tuple[str | None, str, list[str]]:
        section = self._sections.get("kernel")
        kernel = {} if section is None else _mapping(section)
        if section is None or "image" not in kernel:
            raise InvalidArgument(f"{self._path.name}: kernel.image is missing", field="kernel")
        image = kernel["image"]
        name, _, package = str(image.value).partition(":")
        if name != KERNEL_IMAGE or (package and not _PACKAGE.fullmatch(package)):
            raise Unsupported(
                f"{self._at(image)}: kernel image {image.value} is not honoured by this release",
                advice=f"Use {KERNEL_IMAGE}, or {KERNEL_IMAGE}:PACKAGE for a certain package.",
            )
        warnings = [
            f"{self._at(kernel[key])}: kernel.{key} is left out, the package's layout is known"
            for key in ("binary", "tar", "ucode")
            if key in kernel
        ]
        cmdline = kernel["cmdline"].value if "cmdline" in kernel else ""
        return package or None, " ".join(str(cmdline).split()), warnings

    def _check_init(self) -> None:
        section = self._sections.get("init")
        images = [] if section is None else _items(section)
        if section is None or not images:
            raise InvalidArgument(
                f"{self._path.name}: init is missing",
                field="init",
                advice=f"Write `init: [{AGENT_IMAGE}]`.",
            )
        for image in images:
            if image.value != AGENT_IMAGE or len(images) > 1:
                raise Unsupported(
                    f"{self._at(image)}: init image {image.value} is not honoured by this release",
                    advice=f"init must be [{AGENT_IMAGE}] alone.",
                )

    def _files(self) -> list[Entry]:
        section = self._sections.get("files")
        entries = [] if section is None else [self._file(node) for node in _items(section)]
        return [entry for entry in entries if entry is not None]

    def _file(self, node: Node) -> Entry | None:
        keys = _mapping(node)
        kinds = [key for key in _KINDS if key in keys and keys[key].value is not False]
        path = str(keys["path"].value).strip("/") if "path" in keys else ""
        if not path:
            raise InvalidArgument(f"{self._at(node)}: {node.path}.path is missing", field="files")
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"{self._at(keys['path'])}: {path} leaves the root or is unclear")
        if len(kinds) != 1:
            raise InvalidArgument(
                f"{self._at(node)}: {path} needs exactly one of {', '.join(_KINDS)}", field="files"
            )
        uid, gid = self._owner(keys, "uid"), self._owner(keys, "gid")
        if kinds[0] == "directory":
            mode = stat.S_IFDIR | self._permissions(keys, _DIRECTORY_PERMISSIONS)
            return Entry(path, mode, uid=uid, gid=gid)
        if kinds[0] == "symlink":
            target = str(keys["symlink"].value).encode()
            return Entry(path, stat.S_IFLNK | 0o777, target, uid, gid)
        data = self._contents(keys, kinds[0])
        if data is None:
            return None
        mode = stat.S_IFREG | self._permissions(keys, _FILE_PERMISSIONS)
        return Entry(path, mode, data, uid, gid)

    def _contents(self, keys: dict[str, Node], kind: str) -> bytes | None:
        """What is in a file; None if its source is missing and optional."""
        value = keys[kind]
        if kind == "contents":
            return str(value.value).encode()
        if kind == "metadata":
            if value.value != "yaml":
                raise InvalidArgument(f"{self._at(value)}: metadata must be yaml", field="files")
            return self._text
        source = Path(str(value.value)).expanduser()
        source = self._path.parent / source
        try:
            if source.stat().st_size > _MAX_SOURCE_BYTES:
                raise InvalidArgument(
                    f"{self._at(value)}: {source} is larger than {_MAX_SOURCE_BYTES} bytes"
                )
            return source.read_bytes()
        except FileNotFoundError as exc:
            if "optional" in keys and keys["optional"].value:
                return None
            raise InvalidArgument(f"{self._at(value)}: {source} does not exist") from exc
        except OSError as exc:
            raise InvalidArgument(
                f"{self._at(value)}: {source} cannot be read: {exc.strerror}"
            ) from exc

    def _permissions(self, keys: dict[str, Node], default: int) -> int:
        if "mode" not in keys:
            return default
        text = str(keys["mode"].value)
        if not _MODE.fullmatch(text):
            raise InvalidArgument(
                f"{self._at(keys['mode'])}: mode {text!r} is not octal, such as '0644'",
                field="files",
            )
        return int(text, 8)

    def _owner(self, keys: dict[str, Node], key: str) -> int:
        value = keys[key].value if key in keys else 0
        if isinstance(value, int) and 0 <= value <= 0xFFFF_FFFF:
            return value
        if isinstance(value, str) and _NUMERAL.fullmatch(value) and int(value) <= 0xFFFF_FFFF:
            return int(value)
        raise Unsupported(
            f"{self._at(keys[key])}: {key} {value!r} is not honoured by this release",
            advice="Give a number; names refer to component images.",
        )

    def _at(self, node: Node) -> str:
        return f"{self._path.name} line {node.line}"


def _mapping(node: Node) -> dict[str, Node]:
    assert isinstance(node.value, dict)  # noqa: S101  # the schema has seen to it
    return node.value


def _items(node: Node) -> list[Node]:
    assert isinstance(node.value, list)  # noqa: S101  # the schema has seen to it
    return node.value


def module_list(files: tuple[Entry, ...], path: str) -> list[str]:
    """Module names in a file of the guest: one a line, `#` begins a comment.

    Returns:
        Names in the file's order; empty if there is no such file.
    """
    for entry in files:
        if PurePosixPath(entry.path) == PurePosixPath(path) and stat.S_ISREG(entry.mode):
            lines = entry.data.decode(errors="replace").splitlines()
            names = (line.partition("#")[0].strip() for line in lines)
            return [name for name in names if name]
    return []
