"""Images: run configuration by the OCI image-spec, and what the store says about them.

Pure values. References and digests are in `app.domain.reference`; where image bytes live and how
they get there is `app.oci`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from app.core.errors import CorruptData, NotFound
from app.domain.reference import SHORT_DIGEST_DIGITS, Reference, shown

LAYERS_MAX = 127  # what the guest's overlay mount is tested with; Docker's own limit is 127, too


class ImageNotFound(NotFound):
    """No image has that reference, id or unique id prefix."""

    def __init__(self, reference: str, *, advice: str = "") -> None:
        super().__init__(f"No such image: {reference}", advice=advice)
        self.reference = reference


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's health check, kept with the image (durations in nanoseconds, 0 = default)."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How to run an image (OCI image-spec, config.md, "config" object).

    Attributes:
        entrypoint, cmd: The process is `entrypoint + cmd`; both may be empty.
        env: `NAME=value` strings in order.
        user: `user[:group]`, names or numbers; empty means root.
        exposed_ports: `port/protocol` strings, sorted.
        volumes: Absolute paths, sorted.
        stop_signal: Name or number; empty means SIGTERM.
        shell: For shell forms; empty means `/bin/sh -c`.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read the "config" object of an image configuration; None means all defaults.

        Raises:
            CorruptData: A field has the wrong type, or a string holds a NUL byte.
        """
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise CorruptData("image config is not an object")
        return cls(
            entrypoint=_strings(value, "Entrypoint"),
            cmd=_strings(value, "Cmd"),
            env=_strings(value, "Env"),
            user=_string(value, "User"),
            working_dir=_string(value, "WorkingDir"),
            exposed_ports=_keys(value, "ExposedPorts"),
            volumes=_keys(value, "Volumes"),
            labels=_labels(value),
            stop_signal=_string(value, "StopSignal"),
            shell=_strings(value, "Shell"),
            healthcheck=_healthcheck(value.get("Healthcheck")),
        )

    def to_json(self) -> dict[str, Any]:
        """The "config" object; empty fields are left out, keys come in a fixed order."""
        health = self.healthcheck
        fields: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Volumes": {path: {} for path in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(sorted(self.labels.items())),
            "StopSignal": self.stop_signal,
            "Shell": list(self.shell),
            "Healthcheck": _healthcheck_json(health) if health is not None else None,
        }
        return {key: value for key, value in fields.items() if value}


def _check_text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise CorruptData(f"image config: {key} holds {shown(value)}, not a string")
    if "\0" in value:
        raise CorruptData(f"image config: {key} holds a NUL byte: {shown(value)}")
    return value


def _string(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    return "" if value is None else _check_text(value, key)


def _strings(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise CorruptData(f"image config: {key} is not a list of strings")
    return tuple(_check_text(item, key) for item in value)


def _keys(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise CorruptData(f"image config: {key} is not an object")
    return tuple(sorted(_check_text(item, key) for item in value))


def _labels(config: Mapping[str, Any]) -> dict[str, str]:
    value = config.get("Labels")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CorruptData("image config: Labels is not an object")
    return {_check_text(k, "Labels"): _check_text(v, "Labels") for k, v in value.items()}


_HEALTH_NUMBERS = {
    "Interval": "interval_ns",
    "Timeout": "timeout_ns",
    "StartPeriod": "start_period_ns",
    "StartInterval": "start_interval_ns",
    "Retries": "retries",
}


def _healthcheck(value: object) -> Healthcheck | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise CorruptData("image config: Healthcheck is not an object")
    numbers: dict[str, int] = {}
    for key, name in _HEALTH_NUMBERS.items():
        number = value.get(key) or 0
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
            raise CorruptData(f"image config: Healthcheck.{key} is not a positive number")
        numbers[name] = number
    return Healthcheck(_strings(value, "Test"), **numbers)


def _healthcheck_json(health: Healthcheck) -> dict[str, Any]:
    numbers = {key: getattr(health, name) for key, name in _HEALTH_NUMBERS.items()}
    return {"Test": list(health.test)} | {key: n for key, n in numbers.items() if n}


@dataclass(frozen=True, slots=True)
class Image:
    """One stored image.

    Attributes:
        id: Digest of its configuration, as Docker's image id (`sha256:<hex>`).
        references: Tagged names and, of what came from or went to a registry, names by digest;
            sorted; empty for a "dangling" image.
        created: As its configuration says (aware UTC), or None.
        diff_ids: Digests of the uncompressed layers, lowest first.
        size_bytes: Sum of the uncompressed layers.
        manifest_digest: Digest of its manifest in the store.
    """

    id: str
    references: tuple[Reference, ...]
    config: ImageConfig
    created: datetime | None
    architecture: str
    os: str
    diff_ids: tuple[str, ...]
    size_bytes: int
    manifest_digest: str

    @property
    def short_id(self) -> str:
        """The 12 digits that people see."""
        return self.id.removeprefix("sha256:")[:SHORT_DIGEST_DIGITS]

    @property
    def tags(self) -> tuple[Reference, ...]:
        """The names with a tag."""
        return tuple(item for item in self.references if item.tag is not None)

    @property
    def mounted_diff_ids(self) -> tuple[str, ...]:
        """Layers to mount, lowest first: one that occurs twice only at its highest place.

        All it holds shows from there, and overlayfs refuses the same directory twice.
        """
        return tuple(reversed(dict.fromkeys(reversed(self.diff_ids))))

    @property
    def display_name(self) -> str:
        """The first reference in familiar form, or `<none>`."""
        return self.references[0].familiar if self.references else "<none>"


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container that uses an image: what keeps the image from being deleted."""

    container_id: str
    image_id: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class ImageRemoval:
    """What a removal did, in Docker's order: untagged references, then deleted digests.

    Attributes:
        untagged: Familiar references that no longer exist.
        deleted: Image id and layer digests (`sha256:...`) whose data is gone.
        freed_bytes: Disk space given back.
    """

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    freed_bytes: int


class ImportStage(StrEnum):
    """What an import is doing."""

    RECEIVING = "receiving"
    VERIFYING = "verifying"
    CONVERTING = "converting"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """A step of an import.

    Attributes:
        subject: Empty for the whole archive, else the layer's short digest.
        done_bytes, total_bytes: Total is None while unknown.
    """

    stage: ImportStage
    subject: str
    done_bytes: int
    total_bytes: int | None
