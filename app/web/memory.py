"""A VM's memory as the host pays for it: application, guest cache, kernel and agent, hypervisor."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.services.stats import ContainerSample
from app.web import formats


@dataclass(frozen=True)
class Part:
    """One part of the bar, in bytes from its left end."""

    css_class: str
    label: str
    start_bytes: int
    size_bytes: int

    @property
    def text(self) -> str:
        """Its size for the key."""
        return formats.size(self.size_bytes)


@dataclass(frozen=True)
class MemoryView:
    """The bar and the sentence below it.

    Attributes:
        total_bytes: Right end of the bar: the VM's memory, and what the hypervisor adds.
        resident_bytes: What the host has really given (PSS), None before it was measured.
        template_bytes: Of it, the VM's share of the template that all clones have in common.
        isolation_bytes: Kernel, agent and hypervisor: the price of an own kernel.
    """

    total_bytes: int
    parts: tuple[Part, ...]
    free_bytes: int
    resident_bytes: int | None
    isolation_bytes: int
    template_bytes: int
    container_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Split:
    """Bytes of each kind, not below zero and not counted twice."""

    app_bytes: int
    cache_bytes: int
    kernel_bytes: int
    vmm_bytes: int


def split_sample(sample: ContainerSample) -> Split:
    """Attribute guest memory, and what the host holds beyond it to the hypervisor.

    The guest may know pages as used that the host no longer holds and the other way round; the
    hypervisor's part is the difference where it is positive, else unknown and shown as nothing.
    """
    app_bytes = max(sample.memory_anon_bytes, 0)
    cache_bytes = max(sample.memory_file_bytes, 0)
    kernel_bytes = max(sample.guest_kernel_bytes, 0)
    return Split(app_bytes, cache_bytes, kernel_bytes, sample.vmm_overhead_bytes or 0)


def memory_view(sample: ContainerSample, limit_bytes: int) -> MemoryView:
    """What the container's page shows."""
    split = split_sample(sample)
    parts = _stacked(
        (
            ("f-app", "App", split.app_bytes),
            ("f-cache", "Guest page cache", split.cache_bytes),
            ("f-kern", "Kernel + agent", split.kernel_bytes),
            ("f-vmm", "Hypervisor", split.vmm_bytes),
        )
    )
    taken = sum(part.size_bytes for part in parts)
    total = max(sample.guest_total_bytes + split.vmm_bytes, taken, 1)
    return MemoryView(
        total_bytes=total,
        parts=parts,
        free_bytes=total - taken,
        resident_bytes=sample.host_resident_bytes,
        isolation_bytes=split.kernel_bytes + split.vmm_bytes,
        template_bytes=sample.host_template_bytes or 0,
        container_bytes=max(sample.memory_bytes, 0),
        limit_bytes=limit_bytes,
    )


def host_split(
    samples: Iterable[ContainerSample], *, total_bytes: int, available_bytes: int
) -> tuple[Part, ...]:
    """The host's memory: all VMs by kind, then what everything else uses."""
    splits = [split_sample(sample) for sample in samples]
    app = sum(one.app_bytes for one in splits)
    cache = sum(one.cache_bytes for one in splits)
    kernel = sum(one.kernel_bytes for one in splits)
    vmm = sum(one.vmm_bytes for one in splits)
    used = max(total_bytes - available_bytes, 0)
    other = max(used - app - cache - kernel - vmm, 0)
    return _stacked(
        (
            ("f-app", "Apps", app),
            ("f-cache", "Guest caches", cache),
            ("f-kern", "Kernels + agents", kernel),
            ("f-vmm", "Hypervisors", vmm),
            ("f-edge", "Everything else", other),
        )
    )


def _stacked(sizes: Iterable[tuple[str, str, int]]) -> tuple[Part, ...]:
    parts: list[Part] = []
    start = 0
    for css_class, label, size_bytes in sizes:
        parts.append(Part(css_class, label, start, size_bytes))
        start += size_bytes
    return tuple(parts)
