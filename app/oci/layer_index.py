"""First pass over a layer: judges every entry and works out the tree that the layer leaves.

A tar is a list of steps; a filesystem image is the result. Entries replace earlier ones, hard
links keep what a later entry replaces, directories come after their content or not at all, and
whiteouts say what to hide below. The index plays the steps on names alone (nothing is unpacked)
and answers, in the second pass, what each entry still stands for.

Replacement rules as Docker's and containerd's unpacking; whiteouts as OCI image-spec, layer.md,
"Whiteouts".
"""

from dataclasses import dataclass

from app.core.errors import InvalidArgument
from app.domain.reference import shown
from app.oci.limits import ImportLimits
from app.oci.tar_reader import EntryKind, TarEntry

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
META_PREFIX = b".wh..wh."  # aufs' own files; Docker skips them

COMPONENT_MAX_BYTES = 255  # NAME_MAX
PATH_MAX_BYTES = 4095  # PATH_MAX without the NUL
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 65536  # XATTR_SIZE_MAX
ID_MAX = 2**32 - 2  # 2**32 - 1 means "none"
DEVICE_MAJOR_MAX = 2**12 - 1
DEVICE_MINOR_MAX = 2**20 - 1
OWNERS_MAX = 65536  # squashfs keeps uids and gids in one table with 16-bit indexes
REPLACED_DIRECTORIES_MAX = 100  # each costs a walk over all names
LINKS_PER_FILE_MAX = 65000  # ext4's limit, so that a copy-up can't fail on it

IMPLIED = -1  # ordinal of a directory that no entry describes


@dataclass(frozen=True, slots=True)
class Attributes:
    """Owner, mode and time of a directory."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0


class LayerIndex:
    """The tree of one layer, by names.

    Feed every entry in order to `add()`, then ask.

    Attributes:
        root: Attributes of the root directory.
        content_bytes: Sum of all file sizes, holes included.
        newest_s: The latest time of any entry.
    """

    def __init__(self, *, what: str, limits: ImportLimits) -> None:
        self._what = what
        self._limits = limits
        self._kinds = bytearray()
        self._ordinals: dict[bytes, int] = {b"": IMPLIED}
        self._links: dict[int, list[bytes]] = {}
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._owners: set[int] = set()
        self._replaced_directories = 0
        self.root = Attributes()
        self.content_bytes = 0
        self.newest_s = 0

    def add(self, entry: TarEntry) -> None:
        """Play one entry.

        Raises:
            InvalidArgument: The entry is unsafe, impossible, or one too many; the
                answers mean nothing after that.
        """
        if len(self._kinds) >= self._limits.layer_entries:
            raise self._refused(f"has more than {self._limits.layer_entries:,} entries")
        self._kinds.append(entry.kind)
        self._check_attributes(entry)
        self.content_bytes += entry.size_bytes
        self.newest_s = max(self.newest_s, clamp_time(entry.mtime_s))
        if self.content_bytes > self._limits.layer_bytes:
            raise self._refused(f"unpacks to more than {self._limits.layer_bytes:,} bytes")
        path = self.path_of(entry)
        parent, _, base = path.rpartition(b"/")
        if self._is_skipped(path):
            return
        if base.startswith(WHITEOUT_PREFIX):
            self._add_whiteout(entry, parent, base)
        elif not path:
            self._set_root(entry)
        else:
            self._ensure_directory(parent, entry)
            self._place(entry, path)

    def _add_whiteout(self, entry: TarEntry, parent: bytes, base: bytes) -> None:
        self._ensure_directory(parent, entry)
        if base == OPAQUE_NAME:
            if not parent:
                raise self._refused("hides its whole parent image (opaque root directory)")
            self._opaque.add(parent)
            return
        hidden = base.removeprefix(WHITEOUT_PREFIX)
        if hidden in (b"", b".", b".."):
            raise self._refused(f"has a whiteout of nothing: {shown(entry.name)}")
        self._whiteouts.add(_join(parent, hidden))

    def _set_root(self, entry: TarEntry) -> None:
        if entry.kind is not EntryKind.DIRECTORY:
            raise self._refused("has a root that is no directory")
        self.root = Attributes(entry.mode, entry.uid, entry.gid, clamp_time(entry.mtime_s))

    def _place(self, entry: TarEntry, path: bytes) -> None:
        ordinal = entry.ordinal
        if entry.kind is EntryKind.HARD_LINK:
            ordinal = self._link_target(entry, path)
        existing = self._ordinals.get(path)
        if existing is not None and self._is_directory(existing):
            if entry.kind is EntryKind.DIRECTORY:
                self._ordinals[path] = ordinal
                return
            self._drop_directory(path)
        self._ordinals[path] = ordinal

    def _link_target(self, entry: TarEntry, path: bytes) -> int:
        target = normalise(entry.link, what=f"{self._what}: target of {shown(entry.name)}")
        ordinal = self._ordinals.get(target)
        if ordinal is None:
            raise self._refused(
                f"has a hard link {shown(entry.name)} to {shown(entry.link)}, "
                "which is not before it in the same layer"
            )
        if self._is_directory(ordinal):
            raise self._refused(f"has a hard link {shown(entry.name)} to a directory")
        links = self._links.setdefault(ordinal, [])
        if len(links) >= LINKS_PER_FILE_MAX:
            raise self._refused(f"has too many hard links to {shown(entry.link)}")
        links.append(path)
        return ordinal

    def _ensure_directory(self, path: bytes, entry: TarEntry) -> None:
        """Make sure `path` and all above it are directories; add what no entry describes."""
        missing: list[bytes] = []
        while (ordinal := self._ordinals.get(path)) is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        if not self._is_directory(ordinal):
            kind = EntryKind(self._kinds[ordinal]).name.lower().replace("_", " ")
            raise self._refused(
                f"has an entry {shown(entry.name)} below {shown(path)}, which is a {kind}"
            )
        for name in missing:
            self._ordinals[name] = IMPLIED

    def _drop_directory(self, path: bytes) -> None:
        self._replaced_directories += 1
        if self._replaced_directories > REPLACED_DIRECTORIES_MAX:
            raise self._refused("replaces directories by files too often")
        below = path + b"/"
        for name in [name for name in self._ordinals if name.startswith(below)]:
            del self._ordinals[name]

    def _is_directory(self, ordinal: int) -> bool:
        return ordinal == IMPLIED or self._kinds[ordinal] == EntryKind.DIRECTORY

    def _is_skipped(self, path: bytes) -> bool:
        """Whether aufs' bookkeeping; refuses other names below a whiteout."""
        if b".wh." not in path:
            return False
        *above, base = path.split(b"/")
        for component in above:
            if component.startswith(META_PREFIX):
                return True
            if component.startswith(WHITEOUT_PREFIX):
                raise self._refused(f"has an entry below a whiteout: {shown(path)}")
        return base.startswith(META_PREFIX) and base != OPAQUE_NAME

    def _check_attributes(self, entry: TarEntry) -> None:
        name = shown(entry.name)
        if not (entry.uid <= ID_MAX and entry.gid <= ID_MAX):
            raise self._refused(f"has an impossible owner {entry.uid}:{entry.gid} on {name}")
        self._owners.update((entry.uid, entry.gid))
        if len(self._owners) > OWNERS_MAX:
            raise self._refused(f"has more than {OWNERS_MAX:,} different owners")
        major, minor = entry.device
        if major > DEVICE_MAJOR_MAX or minor > DEVICE_MINOR_MAX:
            raise self._refused(f"has an impossible device number {major}:{minor} on {name}")
        if entry.kind is EntryKind.SYMLINK and (
            not entry.link or len(entry.link) > PATH_MAX_BYTES or b"\0" in entry.link
        ):
            raise self._refused(f"has an impossible target on symbolic link {name}")
        for key, value in entry.xattrs.items():
            is_bad_name = not key or len(key) > XATTR_NAME_MAX_BYTES or b"\0" in key
            if is_bad_name or len(value) > XATTR_VALUE_MAX_BYTES:
                raise self._refused(f"has an impossible attribute {shown(key)} on {name}")

    def _refused(self, fault: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self._what} {fault}",
            advice="The archive is damaged or was made to do harm; it was not imported.",
        )

    def path_of(self, entry: TarEntry) -> bytes:
        """The normalised name: relative, no empty or `.` components; empty for the root.

        Raises:
            InvalidArgument: The name leaves the root or can't exist on Linux.
        """
        return normalise(entry.name, what=f"{self._what}: entry {shown(entry.name)}")

    def names_of(self, entry: TarEntry) -> list[bytes]:
        """All final names of what this entry made, its own first; empty if nothing is left."""
        if entry.kind is EntryKind.HARD_LINK:
            return []
        own = self.path_of(entry)
        names = dict.fromkeys([own, *self._links.get(entry.ordinal, ())])
        return [name for name in names if name and self._ordinals.get(name) == entry.ordinal]

    def is_opaque(self, path: bytes) -> bool:
        """Whether a directory hides the one of that name below.

        A directory beside its own whiteout is a new one: the whiteout removed the old.
        """
        return path in self._opaque or path in self._whiteouts

    @property
    def is_empty(self) -> bool:
        """Whether no entry came at all."""
        return not self._kinds

    def implied_directories(self) -> list[bytes]:
        """Directories that no entry describes, parents first."""
        return sorted(name for name, at in self._ordinals.items() if at == IMPLIED and name)

    def whiteouts(self) -> list[bytes]:
        """Names to hide that this layer doesn't fill itself, sorted."""
        return sorted(
            name
            for name in self._whiteouts
            if name not in self._ordinals
            and (at := self._ordinals.get(name.rpartition(b"/")[0])) is not None
            and self._is_directory(at)
        )


def normalise(name: bytes, *, what: str) -> bytes:
    """Make a tar's name relative and plain.

    Raises:
        InvalidArgument: It holds `..` or NUL, or is longer than Linux allows; `what` begins the
            message.
    """
    if b"\0" in name:
        raise InvalidArgument(f"{what} holds a NUL byte")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidArgument(
            f"{what} leaves its directory by '..'",
            advice="The archive was made to write outside of its root; it was not imported.",
        )
    if any(len(part) > COMPONENT_MAX_BYTES for part in parts):
        raise InvalidArgument(f"{what} has a part longer than {COMPONENT_MAX_BYTES} bytes")
    path = b"/".join(parts)
    if len(path) > PATH_MAX_BYTES:
        raise InvalidArgument(f"{what} is longer than {PATH_MAX_BYTES} bytes")
    return path


def clamp_time(mtime_s: int) -> int:
    """Seconds as squashfs stores them: 32 bits, unsigned."""
    return min(max(mtime_s, 0), 2**32 - 1)


def _join(parent: bytes, base: bytes) -> bytes:
    return parent + b"/" + base if parent else base
