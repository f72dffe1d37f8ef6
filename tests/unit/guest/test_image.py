"""Building a guest over small stand-ins for apt, the kernel and the agent."""

import asyncio
import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import (
    CorruptData,
    InvalidArgument,
    PrerequisiteMissing,
    SlipwayError,
    Unavailable,
    Unsupported,
)
from app.guest.image import GuestImage, build_guest, export_guest, find_guest
from tests.unit.guest.kernel_package import (
    IMAGE_PACKAGE,
    META_PACKAGE,
    RELEASE,
    VMLINUX,
    FakeApt,
    bzimage,
    kernel_deb,
    offer_kernel,
)
from tests.unit.guest.test_cpio import parse

YAML = f"""\
kernel:
  image: slipway/kernel:{META_PACKAGE}
  cmdline: console=ttyS0 panic=-1
init: [slipway/agent]
files:
  - path: etc/modules-load.d/early.conf
    contents: |
      virtio_pci
      virtio_console
  - path: etc/modules-load.d/late.conf
    contents: |
      ext4
      overlay
      virtio_pci
"""
MAKEFILE = """\
OUT ?= build
all:
\tmkdir -p $(OUT)
\tcat $(dir $(abspath $(lastword $(MAKEFILE_LIST))))agent.c > $(OUT)/slipway-agent
\techo warm > $(OUT)/warm-up
"""


class Workshop:
    """A LinuxKit file, agent sources and a cache in a temporary directory."""

    def __init__(self, root: Path, apt: FakeApt) -> None:
        self.apt = apt
        self.yaml = root / "guest.yml"
        self.yaml.write_text(YAML)
        self.agent = root / "agent"
        (self.agent / "tests").mkdir(parents=True)
        (self.agent / "Makefile").write_text(MAKEFILE)
        (self.agent / "agent.c").write_text("int main;\n")
        self.cache = root / "cache"
        self.said: list[str] = []

    async def build(
        self, *, cache: Path | None = None, refresh: bool = False, epoch_s: int = 0
    ) -> GuestImage:
        self.said.clear()
        return await build_guest(
            self.yaml,
            cache_dir=cache or self.cache,
            agent_source_dir=self.agent,
            progress=self.said.append,
            refresh=refresh,
            source_date_epoch_s=epoch_s,
        )

    def find(self) -> GuestImage | None:
        return find_guest(self.yaml, cache_dir=self.cache, agent_source_dir=self.agent)

    def files(self) -> list[str]:
        """Everything in the cache but its lock."""
        found = (path.relative_to(self.cache) for path in self.cache.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.name != ".lock")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    apt = offer_kernel(tmp_path)
    monkeypatch.setenv("PATH", f"{apt.programs}:{os.environ['PATH']}")
    return Workshop(tmp_path, apt)


def contents(image: GuestImage) -> dict[str, bytes]:
    return {name: data for name, _, data in parse(image.initrd.read_bytes())}


async def test_build_gives_kernel_and_initrd(workshop: Workshop) -> None:
    image = await workshop.build()
    assert image.kernel.read_bytes() == VMLINUX
    assert image.cmdline == "console=ttyS0 panic=-1"
    assert image.kernel_version == RELEASE
    files = contents(image)
    assert files["init"] == b"int main;\n"
    base = f"lib/modules/{RELEASE}/kernel"
    assert files["etc/modules.load"].decode().splitlines() == [
        f"/{base}/drivers/virtio/virtio.ko",
        f"/{base}/drivers/virtio/virtio_pci.ko",
        f"/{base}/drivers/char/virtio_console.ko",
        "# The agent answers the host before it loads these.",
        f"/{base}/fs/jbd2/jbd2.ko",
        f"/{base}/fs/ext4/ext4.ko",
    ]
    for line in files["etc/modules.load"].decode().splitlines():
        assert line.startswith("#") or line[1:] in files
    assert {"dev/console", "dev/null", "proc", "sys", "run", "tmp"} <= files.keys()


async def test_same_inputs_give_the_same_bytes_elsewhere(
    workshop: Workshop, tmp_path: Path
) -> None:
    first = await workshop.build()
    second = await workshop.build(cache=tmp_path / "another/cache")
    assert second.initrd != first.initrd
    assert second.initrd.read_bytes() == first.initrd.read_bytes()
    assert second.kernel.read_bytes() == first.kernel.read_bytes()
    assert second.warm_up_layer.read_bytes() == first.warm_up_layer.read_bytes()
    assert second.key == first.key


async def test_second_build_comes_from_the_cache(workshop: Workshop) -> None:
    first = await workshop.build()
    assert workshop.apt.calls()
    assert await workshop.build() == first
    assert workshop.said == []
    assert workshop.apt.calls() == []


async def test_find_gives_what_a_build_would_take_from_the_cache(workshop: Workshop) -> None:
    assert workshop.find() is None
    assert not workshop.cache.exists()
    image = await workshop.build()
    assert workshop.find() == image


async def test_find_gives_nothing_once_the_inputs_have_changed(workshop: Workshop) -> None:
    await workshop.build()
    workshop.apt.calls()
    (workshop.agent / "agent.c").write_text("int other;\n")
    assert workshop.find() is None
    assert workshop.apt.calls() == []


async def test_cached_guest_needs_no_tools(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = await workshop.build()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert await workshop.build() == first


Change = Callable[[Workshop], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda shop: shop.yaml.write_text(YAML.replace("panic=-1", "panic=1")),
        lambda shop: shop.yaml.write_text(YAML + "  - {path: a, contents: b}\n"),
        lambda shop: (shop.agent / "agent.c").write_text("int other;\n"),
        lambda shop: (shop.agent / "new.h").write_text(""),
        lambda shop: (shop.agent / "Makefile").write_text(MAKEFILE + "# more\n"),
        lambda shop: shop.yaml.write_text(YAML.replace("      overlay\n", "")),
    ],
    ids=["cmdline", "file", "source", "header", "makefile", "modules"],
)
async def test_changed_input_is_built_anew(workshop: Workshop, change: Change) -> None:
    first = await workshop.build()
    change(workshop)
    second = await workshop.build()
    assert second.key != first.key
    assert first.initrd.exists()


async def test_time_stamp_is_an_input(workshop: Workshop) -> None:
    first = await workshop.build()
    second = await workshop.build(epoch_s=1_700_000_000)
    assert second.key != first.key
    assert {fields["mtime"] for _, fields, _ in parse(second.initrd.read_bytes())} == {
        1_700_000_000
    }


async def test_tests_of_the_agent_are_no_input(workshop: Workshop) -> None:
    first = await workshop.build()
    (workshop.agent / "tests/test.c").write_text("int test;\n")
    (workshop.agent / "README").write_text("words\n")
    assert await workshop.build() == first


async def test_changed_agent_does_not_fetch_the_kernel(workshop: Workshop) -> None:
    await workshop.build()
    workshop.apt.calls()
    (workshop.agent / "agent.c").write_text("int other;\n")
    await workshop.build()
    assert workshop.apt.calls() == []


async def test_newer_kernel_is_taken_when_asked(workshop: Workshop, tmp_path: Path) -> None:
    first = await workshop.build()
    workshop.apt.publish(META_PACKAGE, "2", f"{IMAGE_PACKAGE} (= 2)")
    workshop.apt.publish(IMAGE_PACKAGE, "2")
    (tmp_path / "newer").mkdir()
    kernel_deb(tmp_path / "newer", workshop.apt.archive(IMAGE_PACKAGE, "2"))
    assert await workshop.build() == first
    second = await workshop.build(refresh=True)
    assert second.key != first.key
    assert await workshop.build() == second


async def test_modules_in_a_package_of_their_own(workshop: Workshop) -> None:
    """Ubuntu's layout: the kernel's package depends on the one with the modules."""
    workshop.apt.publish(IMAGE_PACKAGE, "1", "kmod, linux-modules-6.1.0-9-test")
    workshop.apt.publish("linux-modules-6.1.0-9-test", "1")
    archive = workshop.apt.archive("linux-modules-6.1.0-9-test", "1")
    archive.write_bytes(workshop.apt.archive(IMAGE_PACKAGE, "1").read_bytes())
    await workshop.build()
    assert workshop.apt.calls() == [
        f"show {META_PACKAGE}",
        f"show {IMAGE_PACKAGE}",
        "show linux-modules-6.1.0-9-test",
        f"download {IMAGE_PACKAGE}=1",
        "download linux-modules-6.1.0-9-test=1",
    ]


Fault = tuple[Change, type[SlipwayError], str]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (lambda shop: shop.yaml.write_text("kernel: 1"), InvalidArgument, "line 1"),
        (
            lambda shop: shop.yaml.write_text(YAML.replace("ext4", "squashfs")),
            InvalidArgument,
            "has no module squashfs",
        ),
        (
            lambda shop: shop.yaml.write_text(YAML + "services:\n  - {name: a, image: b}\n"),
            Unsupported,
            "services",
        ),
        (
            lambda shop: shop.yaml.write_text(YAML.replace(META_PACKAGE, "no-such-package")),
            PrerequisiteMissing,
            "apt knows no package no-such-package",
        ),
        (
            lambda shop: shop.apt.publish(META_PACKAGE, "1", "bash"),
            PrerequisiteMissing,
            "is no Linux kernel package",
        ),
        (
            lambda shop: shop.apt.archive(IMAGE_PACKAGE, "1").unlink(),
            Unavailable,
            "cannot be downloaded: E: cannot fetch",
        ),
        (
            lambda shop: shop.apt.archive(IMAGE_PACKAGE, "1").write_bytes(b"no package"),
            CorruptData,
            "cannot be unpacked",
        ),
        (
            lambda shop: (shop.apt.programs / "apt-cache").write_text("#!/bin/sh\nexit 1\n"),
            PrerequisiteMissing,
            "apt knows no package",
        ),
        (
            lambda shop: (shop.agent / "agent.c").unlink(),
            PrerequisiteMissing,
            "the agent cannot be compiled: .*agent.c",
        ),
        (
            lambda shop: (shop.agent / "Makefile").write_text("all:\n\texit 3\n"),
            PrerequisiteMissing,
            "the agent cannot be compiled",
        ),
    ],
)
async def test_fault_is_named_and_leaves_nothing(
    workshop: Workshop, fault: Change, kind: type[SlipwayError], message: str
) -> None:
    fault(workshop)
    with pytest.raises(kind, match=message):
        await workshop.build()
    assert [path for path in workshop.files() if not path.startswith("kernels/")] == []
    assert not [path for path in workshop.files() if "/." in path or path.startswith(".")]


async def test_kernel_of_an_unknown_form_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = offer_kernel(tmp_path, image=bzimage(b"something"))
    monkeypatch.setenv("PATH", f"{apt.programs}:{os.environ['PATH']}")
    workshop = Workshop(tmp_path, apt)
    with pytest.raises(CorruptData, match="unknown form"):
        await workshop.build()
    assert workshop.files() == []


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        ("apt-cache", "Debian and Ubuntu"),
        ("make", "apt-get install gcc"),
        ("mksquashfs", "squashfs-tools"),
    ],
)
async def test_missing_program_is_named_with_its_cure(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, cure: str
) -> None:
    path = tmp_path / "path"
    path.mkdir()
    for name in (
        "apt-cache", "apt-get", "make", "dpkg-deb", "tar", "sh", "cat", "mkdir", "cp", "mksquashfs",
    ):  # fmt: skip
        program = workshop.apt.programs / name
        target = program if program.exists() else Path(f"/usr/bin/{name}")
        if name != missing:
            (path / name).symlink_to(target)
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(PrerequisiteMissing, match=f"{missing} is not installed") as caught:
        await workshop.build()
    assert cure in caught.value.advice


async def test_concurrent_builds_share_the_work(workshop: Workshop) -> None:
    images = await asyncio.gather(*(workshop.build() for _ in range(4)))
    assert len(set(images)) == 1
    assert workshop.apt.calls().count(f"download {IMAGE_PACKAGE}=1") == 1


async def test_cancelled_build_leaves_nothing(workshop: Workshop, tmp_path: Path) -> None:
    # Opening a FIFO waits for its other end: the compiler has begun once this side is open.
    marker = tmp_path / "compiling"
    os.mkfifo(marker)
    (workshop.agent / "Makefile").write_text(f"all:\n\techo $$$$ > {marker}; exec sleep 60\n")
    task = asyncio.create_task(workshop.build())
    compiler = os.pidfd_open(int(await asyncio.to_thread(marker.read_text)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended, _, _ = select.select([compiler], [], [], 5)
    os.close(compiler)
    assert ended
    assert all(path.startswith("kernels/") for path in workshop.files())
    (workshop.agent / "Makefile").write_text(MAKEFILE)
    await workshop.build()


@pytest.mark.parametrize("name", ["initrd", "warm_up_layer"])
async def test_damaged_image_is_built_anew(workshop: Workshop, name: str) -> None:
    first = await workshop.build()
    damaged = getattr(first, name)
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-512])
    second = await workshop.build()
    assert second.key == first.key
    assert getattr(second, name).read_bytes() == good


async def test_old_images_are_removed(workshop: Workshop) -> None:
    images = []
    for number in range(6):
        (workshop.agent / "agent.c").write_text(f"int main{number};\n")
        image = await workshop.build()
        os.utime(image.initrd.parent, (number, number))
        images.append(image)
    assert [image.initrd.exists() for image in images] == [False, False, True, True, True, True]


async def test_export_writes_what_linuxkit_would(workshop: Workshop, tmp_path: Path) -> None:
    image = await workshop.build()
    kernel, initrd, cmdline = export_guest(image, "slipway", tmp_path / "out")
    assert kernel.name == "slipway-kernel"
    assert kernel.read_bytes() == VMLINUX
    assert initrd.name == "slipway-initrd.img"
    assert initrd.read_bytes() == image.initrd.read_bytes()
    assert cmdline.name == "slipway-cmdline"
    assert cmdline.read_text() == "console=ttyS0 panic=-1\n"
