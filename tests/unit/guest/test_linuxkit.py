"""LinuxKit files: what is taken, what is refused, and where the message points."""

import stat
from pathlib import Path

import pytest

from app.core.errors import InvalidArgument, Unsupported
from app.guest.linuxkit import LinuxKitFile, load_linuxkit, module_list
from app.resources import guest_dir

HEAD = 'kernel:\n  image: slipway/kernel\n  cmdline: "console=ttyS0"\ninit: [slipway/agent]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "guest.yml"


def load(file: Path, text: str) -> LinuxKitFile:
    file.write_text(text)
    return load_linuxkit(file)


def test_shipped_guest_is_valid_and_complete() -> None:
    guest = load_linuxkit(guest_dir() / "slipway.yml")
    assert guest.warnings == ()
    assert guest.kernel_package is None
    assert "\n" not in guest.cmdline
    assert {"console=ttyS0", "panic=-1", "swiotlb=noforce"} <= set(guest.cmdline.split())
    assert module_list(guest.files, "etc/modules-load.d/early.conf") == [
        "virtio_pci",
        "virtio_console",
    ]
    late = module_list(guest.files, "etc/modules-load.d/late.conf")
    assert {"virtio_scsi", "sd_mod", "squashfs", "ext4", "overlay", "-crc32c_generic"} <= set(late)


def test_kernel_package_can_be_named(file: Path) -> None:
    text = HEAD.replace("slipway/kernel", "slipway/kernel:linux-image-6.1.0-9-amd64")
    assert load(file, text).kernel_package == "linux-image-6.1.0-9-amd64"


def test_folded_command_line_is_one_line(file: Path) -> None:
    text = HEAD.replace('"console=ttyS0"', ">-\n    console=ttyS0\n    quiet   panic=-1")
    assert load(file, text).cmdline == "console=ttyS0 quiet panic=-1"


def test_files_of_every_kind(file: Path) -> None:
    file.with_name("from").write_bytes(b"\x00source")
    text = HEAD + (
        "files:\n"
        "  - {path: /etc/a, contents: text}\n"
        "  - {path: etc/b, source: from, mode: '0755', uid: 3, gid: '4'}\n"
        "  - {path: etc/c, symlink: /etc/a}\n"
        "  - {path: d, directory: true}\n"
        "  - {path: e, source: nowhere, optional: true}\n"
        "  - {path: f, metadata: yaml}\n"
        "  - {path: g, contents: ''}\n"
    )
    entries = {entry.path: entry for entry in load(file, text).files}
    assert sorted(entries) == ["d", "etc/a", "etc/b", "etc/c", "f", "g"]
    assert (entries["etc/a"].mode, entries["etc/a"].data) == (stat.S_IFREG | 0o600, b"text")
    assert entries["etc/b"].data == b"\x00source"
    assert (entries["etc/b"].mode, entries["etc/b"].uid, entries["etc/b"].gid) == (
        stat.S_IFREG | 0o755,
        3,
        4,
    )
    assert (entries["etc/c"].mode, entries["etc/c"].data) == (stat.S_IFLNK | 0o777, b"/etc/a")
    assert entries["d"].mode == stat.S_IFDIR | 0o700
    assert entries["f"].data == text.encode()
    assert entries["g"].data == b""


def test_trust_and_kernel_layout_are_warned_about(file: Path) -> None:
    text = HEAD.replace("  cmdline", "  tar: none\n  cmdline") + "trust:\n  org: [linuxkit]\n"
    assert load(file, text).warnings == (
        "guest.yml line 3: kernel.tar is left out, the package's layout is known",
        "guest.yml line 6: trust is accepted and has no effect",
    )


@pytest.mark.parametrize("section", ["onboot", "services", "onshutdown"])
def test_component_images_are_not_silently_left_out(file: Path, section: str) -> None:
    text = HEAD + f"{section}:\n  - name: dhcpcd\n    image: linuxkit/dhcpcd:v1\n"
    with pytest.raises(Unsupported, match=f"guest.yml line 5: {section} is not honoured"):
        load(file, text)


def test_volumes_are_not_silently_left_out(file: Path) -> None:
    with pytest.raises(Unsupported, match="line 5: volumes is not honoured"):
        load(file, HEAD + "volumes:\n  - {name: data, image: alpine, format: oci}\n")


def test_empty_section_asks_for_nothing(file: Path) -> None:
    assert load(file, HEAD + "onboot: []\n").files == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slipway/kernel", "linuxkit/kernel:6.12.59", "line 2: kernel image linuxkit/kernel:6.12"),
        ("slipway/kernel", "slipway/kernel:../x", "line 2: kernel image"),
        ("[slipway/agent]", "[linuxkit/init:v1, linuxkit/runc:v1]", "line 4: init image linuxkit"),
        ("[slipway/agent]", "[slipway/agent, linuxkit/runc:v1]", "init image slipway/agent"),
    ],
)
def test_image_of_a_registry_is_unsupported(file: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        load(file, HEAD.replace(old, new))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("kernal: {}\n", ["line 1: kernal is unknown to LinuxKit"]),
        ("kernel:\n  image: x\n  initrd: y\n", ["line 3: kernel.initrd is unknown"]),
        ("kernel: linux\n", ["line 1: kernel must be an object"]),
        ("- kernel\n", ["line 1: the file must be an object"]),
        ("init: agent\n", ["line 1: init must be a list"]),
        ("init:\n  - 7\n", ["line 2: init[0] must be a string, not integer; put it in quotes"]),
        ("init:\n", ["line 1: init must be a list"]),
        ("files:\n  - path: a\n    mode: 0644\n", ["line 3: files[0].mode must be a string"]),
        (
            "files:\n  - path: a\n    directory: 'yes'\n",
            ["line 3: files[0].directory must be a bool"],
        ),
        ("files:\n  - path: a\n    uid: 1.5\n", ["files[0].uid must be a string or integer"]),
        ("onboot:\n  - image: a\n", ["line 2: onboot[0] lacks name"]),
        ("onboot:\n  - name: a\n    comand: [b]\n", ["lacks image", "onboot[0].comand is unknown"]),
        (
            "services:\n  - name: a\n    image: b\n    resources:\n      memory: {limt: 1}\n",
            ["line 5: services[0].resources.memory.limt is unknown"],
        ),
        (
            "services:\n  - name: a\n    image: b\n    sysctl: {net.ipv4.ip_forward: 1}\n",
            ["line 4: services[0].sysctl.net.ipv4.ip_forward must be a string"],
        ),
        ("volumes:\n  - format: tar\n", ["volumes[0].format must be one of oci, filesystem"]),
        ("trust: {image: a}\n", ["trust.image must be a list"]),
    ],
)
def test_schema_fault_is_named_with_its_line(file: Path, text: str, messages: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(file, text)
    for message in messages:
        assert message in caught.value.message


def test_every_fault_is_told_at_once(file: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(file, "a: 1\nb: 2\nkernel:\n  image: []\n")
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == [
        "guest.yml line 1",
        "guest.yml line 2",
        "guest.yml line 4",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{contents: a}", "path is missing"),
        ("{path: /, directory: true}", "path is missing"),
        ("{path: ../etc, contents: a}", "leaves the root"),
        ("{path: a/./b, contents: a}", "leaves the root"),
        ("{path: a}", "exactly one of"),
        ("{path: a, contents: b, symlink: c}", "exactly one of"),
        ("{path: a, contents: b, mode: '9'}", "is not octal"),
        ("{path: a, contents: b, mode: '0o644'}", "is not octal"),
        ("{path: a, metadata: json}", "metadata must be yaml"),
        ("{path: a, source: nowhere}", "does not exist"),
        ("{path: a, source: .}", "cannot be read"),
    ],
)
def test_file_that_is_unclear_is_refused(file: Path, entry: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        load(file, HEAD + f"files:\n  - {entry}\n")
    assert "guest.yml line 6" in caught.value.message


@pytest.mark.parametrize("owner", ["uid: dhcpcd", "gid: -1", "uid: 4294967296"])
def test_owner_by_component_is_unsupported(file: Path, owner: str) -> None:
    with pytest.raises(Unsupported, match="is not honoured"):
        load(file, HEAD + f"files:\n  - {{path: a, contents: b, {owner}}}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a: [1\n", "is not YAML: line"),
        ("a: b: c\n", "is not YAML: line 1"),
        ("a: 1\na: 2\n", "line 2: a is given twice"),
        ("? [a]\n: 1\n", "line 1: a key must be a plain name"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", "a key must be a plain name"),
        ("a: !!python/object:os.system {}\n", "unknown to LinuxKit"),
        ("a: !!int x\n", "line 1"),
        ("%YAML 9.9\n---\na: 1\n", "is not YAML"),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused(file: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        load(file, text)


def test_aliases_cannot_blow_up(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InvalidArgument, match="too large or deep"):
        load(file, "\n".join(lines))


def test_deep_document_is_refused(file: Path) -> None:
    with pytest.raises(InvalidArgument):
        load(file, "a: " + "[" * 5000 + "]" * 5000)


def test_large_document_is_refused(file: Path) -> None:
    with pytest.raises(InvalidArgument, match="larger than"):
        load(file, "#" * (1024 * 1024 + 1))


def test_alias_to_itself_is_refused(file: Path) -> None:
    with pytest.raises(InvalidArgument):
        load(file, "a: &a [*a]\n")


def test_missing_kernel_and_init_are_named(file: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"kernel\.image is missing"):
        load(file, "init: [slipway/agent]\n")
    with pytest.raises(InvalidArgument, match="init is missing"):
        load(file, HEAD.replace("init: [slipway/agent]\n", ""))


def test_missing_file_is_named(file: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_linuxkit(file)


def test_module_list_skips_comments(file: Path) -> None:
    text = HEAD + (
        "files:\n"
        "  - path: etc/modules-load.d/early.conf\n"
        "    contents: |\n"
        "      # the channel\n"
        "      virtio_pci  # first\n"
        "\n"
        "      virtio_console\n"
    )
    files = load(file, text).files
    assert module_list(files, "etc/modules-load.d/early.conf") == ["virtio_pci", "virtio_console"]
    assert module_list(files, "etc/modules-load.d/late.conf") == []
