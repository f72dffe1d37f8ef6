"""Finds the images inside an archive: `docker save` (old and new form) and OCI archives.

Members may come in any order, so the archive is a seekable file here, and a member a range of it.
Sources: moby image-spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; OCI image-spec,
image-layout.md.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from app.core.errors import CorruptData, InvalidArgument, Unsupported
from app.domain.reference import shown
from app.oci.config import parse_json
from app.oci.limits import ImportLimits
from app.oci.streams import CancelToken, FileRange, Source
from app.oci.tar_reader import EntryKind, TarReader

DOCKER_MANIFEST_NAME = "manifest.json"
OCI_LAYOUT_NAME = "oci-layout"
OCI_INDEX_NAME = "index.json"
LEGACY_NAME = "repositories"
LINK_HOPS_MAX = 8


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive: a range of it, or a link to another name."""

    offset: int
    size_bytes: int
    link: str | None = None


@dataclass
class ArchiveIndex:
    """The files of an archive by normalised name.

    Attributes:
        is_complete: False if there were more files than the limit; the rest is not listed.
    """

    file: BinaryIO
    limits: ImportLimits
    members: dict[str, Member] = field(default_factory=dict)
    is_complete: bool = True

    @property
    def may_hold_images(self) -> bool:
        """By its names alone."""
        return DOCKER_MANIFEST_NAME in self.members or OCI_INDEX_NAME in self.members

    @property
    def holds_images(self) -> bool:
        """Whether this is an image archive, not a root filesystem."""
        if OCI_LAYOUT_NAME in self.members and OCI_INDEX_NAME in self.members:
            return True
        return DOCKER_MANIFEST_NAME in self.members and self._is_docker_manifest()

    def _is_docker_manifest(self) -> bool:
        """A root filesystem may have a /manifest.json, too: look inside."""
        try:
            value = parse_json(self.read_small(DOCKER_MANIFEST_NAME), what=DOCKER_MANIFEST_NAME)
        except (CorruptData, InvalidArgument):
            return not any(name.startswith(("etc/", "bin/", "usr/")) for name in self.members)
        return isinstance(value, list) and all(
            isinstance(item, dict) and "Config" in item and "Layers" in item for item in value
        )

    def check_usable(self) -> None:
        """Refuse what can't be imported as images.

        Raises:
            InvalidArgument: Too many files.
        """
        if not self.is_complete:
            raise InvalidArgument(
                f"the archive has more than {self.limits.archive_members:,} files, "
                "too many for an image archive"
            )

    def check_not_legacy(self) -> None:
        """Refuse archives from before Docker 1.10, which name no configuration.

        Raises:
            Unsupported: It is one.
        """
        if LEGACY_NAME in self.members and any(
            name.endswith("/layer.tar") and name.count("/") == 1 for name in self.members
        ):
            raise Unsupported(
                "the archive was made by a Docker older than 1.10 (it has no manifest.json)",
                advice="Load and save it with a current Docker first.",
            )

    def find(self, name: str) -> Member | None:
        """The file of that name, links followed within the archive; None if there is none.

        Raises:
            CorruptData: A chain of links that doesn't end.
        """
        current = posixpath.normpath(name)
        for _ in range(LINK_HOPS_MAX):
            member = self.members.get(current)
            if member is None or member.link is None:
                return member
            current = member.link
        raise CorruptData(f"the archive's member {shown(name)} is a loop of links")

    def read_small(self, name: str) -> bytes:
        """A JSON document's bytes.

        Raises:
            CorruptData: Missing, or cut short.
            InvalidArgument: Larger than the limit.
        """
        member = self.find(name)
        if member is None:
            raise CorruptData(f"the archive lacks {shown(name)}, which it refers to")
        if member.size_bytes > self.limits.metadata_bytes:
            raise InvalidArgument(
                f"the archive's {shown(name)} has {member.size_bytes:,} bytes; at most "
                f"{self.limits.metadata_bytes:,} are read"
            )
        data = FileRange(self.file, member.offset, member.size_bytes).read(member.size_bytes)
        if len(data) != member.size_bytes:
            raise CorruptData(f"the archive's {shown(name)} is cut short")
        return data


def index_archive(
    source: Source, file: BinaryIO, *, limits: ImportLimits, token: CancelToken
) -> ArchiveIndex:
    """List the members of a tar.

    Args:
        source: The tar; for a plain file best a FileRange of it, which skips content.
        file: Where members can be read later, uncompressed, at the same offsets.
        limits: Bounds on what is kept.
        token: Stops the walk.

    Raises:
        CorruptData: Not a tar, damaged or truncated.
        InvalidArgument: It would expand beyond the limits; noticed before it does.
    """
    index = ArchiveIndex(file, limits)
    total_bytes = 0
    for entry in TarReader(source, what="the archive", needs_end_mark=True):
        token.check()
        total_bytes += entry.size_bytes
        if entry.size_bytes > limits.layer_bytes or total_bytes > limits.archive_bytes:
            raise InvalidArgument(
                f"the archive unpacks to more than {limits.layer_bytes:,} bytes for one file or "
                f"{limits.archive_bytes:,} in all and was refused",
                advice="If the content is wanted, raise the import limit.",
            )
        name = _member_name(entry.name)
        if name is None or entry.sparse is not None:
            continue
        member = _member(name, entry.kind, entry.link, entry.data_offset, entry.size_bytes)
        if member is None:
            continue
        is_marker = name in (DOCKER_MANIFEST_NAME, OCI_LAYOUT_NAME, OCI_INDEX_NAME)
        if len(index.members) < limits.archive_members or is_marker:
            index.members[name] = member
        else:
            index.is_complete = False
    return index


def _member(name: str, kind: EntryKind, link: bytes, offset: int, size: int) -> Member | None:
    if kind is EntryKind.FILE:
        return Member(offset, size)
    target = link.decode("utf-8", "replace")
    if kind is EntryKind.HARD_LINK:
        return Member(0, 0, _member_name(link))
    if kind is EntryKind.SYMLINK and not target.startswith("/"):
        return Member(0, 0, posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
    return None


def _member_name(name: bytes) -> str | None:
    """Normalised; None for what no image archive contains (not UTF-8, leaving the archive)."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    text = posixpath.normpath(text).lstrip("/")
    return None if text.startswith("..") or "\0" in text else text


def string_list(value: object, *, what: str) -> list[str]:
    """A JSON list of strings, or null for none.

    Raises:
        CorruptData: Something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CorruptData(f"{what} is not a list of strings")
    return value


def string_map(value: object, *, what: str) -> Mapping[str, str]:
    """A JSON object of strings, or null for none.

    Raises:
        CorruptData: Something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CorruptData(f"{what} is not an object of strings")
    return value
