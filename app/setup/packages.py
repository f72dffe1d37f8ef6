"""Names of distribution packages: the one place where distributions differ."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """A distribution that Slipway is set up on.

    Attributes:
        title: What people call it.
        run: Packages that running Slipway needs.
        test: What the tests need beyond that.
        venv: Package that gives Python's `venv` and `ensurepip`.
        kernel: Meta package whose dependency is the guest's kernel with all virtio and Hyper-V
            modules; downloaded and unpacked, never installed.
    """

    title: str
    run: tuple[str, ...]
    test: tuple[str, ...]
    venv: str
    kernel: str


_RUN = (
    "busybox-static",  # the starter image
    "ca-certificates",
    "e2fsprogs",  # mkfs.ext4 for scratch disks
    "gcc",  # the agent
    "libc6-dev",
    "make",
    "qemu-system-x86",
    "squashfs-tools",  # sqfstar for layers
)
_TEST = (
    "docker-registry",
    "git",  # the wheel is built from a clone
    "lz4",
    "skopeo",  # reads and writes images beside our store
    "umoci",  # unpacks layers to compare with
)

DISTRIBUTIONS = {
    "debian 12": Distribution(
        "Debian 12", _RUN, (*_TEST, "chromium"), "python3-venv", "linux-image-amd64"
    ),
    "debian 13": Distribution(
        "Debian 13", _RUN, (*_TEST, "chromium"), "python3-venv", "linux-image-amd64"
    ),
    "ubuntu 24.04": Distribution(
        "Ubuntu 24.04",
        _RUN,
        (*_TEST, "chromium-browser"),  # brings the browser as a snap
        "python3-venv",
        "linux-image-generic",
    ),
}
SUPPORTED = ", ".join(distribution.title for distribution in DISTRIBUTIONS.values())
