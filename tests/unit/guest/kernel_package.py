"""Small stand-ins for what a distribution ships: bzImage, modules, packages, apt."""

import lzma
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

VMLINUX = b"\x7fELF\x02\x01" + b"kernel" * 500
RELEASE = "6.1.0-9-test"
IMAGE_PACKAGE = "linux-image-6.1.0-9-test"
META_PACKAGE = "linux-image-meta"


def bzimage(payload: bytes, *, setup_sectors: int = 3, version: int = 0x20F) -> bytes:
    """A bzImage whose payload begins 100 bytes into its protected-mode part."""
    image = bytearray((setup_sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + bytes(100) + payload + b"rest of the image"


def xz_payload(vmlinux: bytes = VMLINUX) -> bytes:
    """As the kernel's build makes it: the stream, then the size."""
    return lzma.compress(vmlinux) + struct.pack("<I", len(vmlinux))


def kernel_module(depends: str = "", softdeps: Sequence[str] = ()) -> bytes:
    """A 64-bit ELF object with .modinfo, and a section that takes no room in the file."""
    info = b"license=GPL\0" + f"depends={depends}\0".encode()
    info += b"".join(f"softdep={text}\0".encode() for text in softdeps)
    names = b"\0.modinfo\0.shstrtab\0.bss\0"
    table_offset = 64 + len(info) + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(1, 62, 1, 0, 0, table_offset, 0, 64, 0, 0, 64, 4, 2),
    )

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    table = bytes(64) + section(1, 1, 64, len(info))
    table += section(10, 3, 64 + len(info), len(names)) + section(20, 8, 1 << 40, 1 << 20)
    return header + info + names + table


def module_tree(root: Path, modules: dict[str, bytes], builtin: Sequence[str] = ()) -> Path:
    """A `lib/modules/<release>` directory; keys are paths in it."""
    directory = root / "lib/modules" / RELEASE
    directory.mkdir(parents=True)
    for path, data in modules.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (directory / "modules.builtin").write_text("".join(f"{path}\n" for path in builtin))
    return directory


def kernel_deb(root: Path, target: Path, *, image: bytes | None = None) -> None:
    """A kernel package with five modules, in Debian's layout."""
    tree = root / "package"
    module_tree(
        tree,
        {
            "kernel/drivers/virtio/virtio.ko": kernel_module(),
            "kernel/drivers/virtio/virtio_pci.ko": kernel_module("virtio"),
            "kernel/drivers/char/virtio_console.ko": kernel_module("virtio"),
            "kernel/fs/ext4/ext4.ko.xz": lzma.compress(kernel_module("jbd2")),
            "kernel/fs/jbd2/jbd2.ko": kernel_module(),
        },
        builtin=["kernel/fs/overlayfs/overlay.ko"],
    )
    (tree / "boot").mkdir()
    (tree / f"boot/vmlinuz-{RELEASE}").write_bytes(image or bzimage(xz_payload()))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {IMAGE_PACKAGE}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: none\n"
    )
    subprocess.run(
        ["dpkg-deb", "--build", "-Znone", "--root-owner-group", tree, target],
        check=True,
        capture_output=True,
        timeout=30,
    )


class FakeApt:
    """apt-cache and apt-get as scripts over records and archives in a directory.

    Attributes:
        programs: Directory for PATH.
        log: What was called, one call a line.
    """

    def __init__(self, root: Path) -> None:
        self.programs = root / "programs"
        self.programs.mkdir()
        self._records = root / "records"
        self._records.mkdir()
        self._archives = root / "archives"
        self._archives.mkdir()
        self.log = root / "apt.log"
        self.log.touch()
        self._script(
            "apt-cache",
            f'echo "show $3" >> {self.log}\n'
            f"cat {self._records}/$3 2>/dev/null || {{ echo 'E: No packages' >&2; exit 100; }}",
        )
        self._script(
            "apt-get",
            'shift 2; for name in "$@"; do\n'
            f'echo "download $name" >> {self.log}\n'
            f'cp {self._archives}/"$name.deb" . 2>/dev/null'
            " || { echo 'E: cannot fetch' >&2; exit 100; }\n"
            "done",
        )

    def _script(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def publish(self, name: str, version: str, depends: str = "") -> None:
        """Let apt know a version of a package."""
        text = f"Package: {name}\nVersion: {version}\nDepends: {depends}\nDescription: x\n"
        (self._records / name).write_text(text)

    def archive(self, name: str, version: str) -> Path:
        """Where the archive of a package is to be."""
        return self._archives / f"{name}={version}.deb"

    def calls(self) -> list[str]:
        """Calls since the last time."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


def offer_kernel(root: Path, version: str = "1", image: bytes | None = None) -> FakeApt:
    """apt with a meta package and the kernel package that it stands for."""
    apt = FakeApt(root)
    apt.publish(META_PACKAGE, version, f"{IMAGE_PACKAGE} (= {version})")
    apt.publish(IMAGE_PACKAGE, version, "kmod, linux-base (>= 4.3~)")
    kernel_deb(root, apt.archive(IMAGE_PACKAGE, version), image=image)
    return apt
