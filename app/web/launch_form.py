"""The launch form: texts of fields to a ContainerConfig, with a fault for each wrong field."""

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.core.errors import InvalidFields
from app.core.units import GIB, KIB, MIB
from app.domain.container import Container
from app.domain.container_checks import check_config, check_name
from app.domain.container_config import ContainerConfig
from app.domain.restart import RestartPolicy, RestartPolicyName, parse_restart_policy
from app.web.forms import Form

TEXT_FIELDS = (
    "image",
    "name",
    "command",
    "entrypoint",
    "env",
    "labels",
    "memory",
    "cpus",
    "pids_limit",
    "restart",
    "retries",
    "user",
    "working_dir",
    "hostname",
    "stop_signal",
    "stop_timeout_s",
    "cap_add",
    "cap_drop",
)
FLAG_FIELDS = ("tty", "init", "auto_remove", "read_only_root", "no_new_privileges")
# Where the engine's field names differ from the form's.
_FORM_NAMES = {
    "memory_bytes": "memory",
    "restart_policy": "restart",
    "maximum_retries": "retries",
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_UNIT_BYTES = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
MOST_MEMORY_BYTES = 1024 * 1024 * GIB
MOST_PIDS = 4_194_304  # PID_MAX_LIMIT of 64-bit Linux


@dataclass(frozen=True)
class LaunchForm:
    """What was typed, what it means, and what is wrong with it.

    Attributes:
        config: None while a field is faulty.
        faults: Text by field of the form.
    """

    values: Mapping[str, str]
    flags: frozenset[str]
    name: str | None
    config: ContainerConfig | None
    faults: Mapping[str, str] = field(default_factory=dict)


def parse_size_bytes(text: str) -> int:
    """Read "256m", "1.5 GiB" or a number of bytes, all binary as in Docker.

    Raises:
        ValueError: It is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"“{text}” is not a size. Try 256m or 1g.")
    size_bytes = int(float(match[1]) * _UNIT_BYTES[match[2].lower()])
    if size_bytes > MOST_MEMORY_BYTES:
        raise ValueError(f"“{text}” is more than any host has.")
    return size_bytes


def _words(text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError("A quote is opened and not closed.") from error


def _env(text: str) -> tuple[str, ...]:
    entries = tuple(line for line in text.split("\n") if line.strip())
    for entry in entries:
        name, separator, _ = entry.partition("=")
        if not separator or not name.strip():
            raise ValueError(f"“{entry[:60]}” is not NAME=value.")
    return entries


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        key, _, value = line.strip().partition("=")
        if not key:
            raise ValueError(f"“{line[:60]}” has no name before “=”.")
        labels[key] = value
    return labels


def _memory(text: str) -> int:
    return parse_size_bytes(text) if text else 0


def _cpus(text: str) -> float:
    try:
        value = float(text) if text else 0.0
    except ValueError as error:
        raise ValueError(f"“{text}” is not a number. Try 1 or 0.5.") from error
    if not math.isfinite(value):
        raise ValueError(f"“{text}” is not a number of CPUs.")
    return value


def _whole(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"“{text[:20]}” is not a whole number.")
    return int(text)


def _pids(text: str) -> int:
    value = _whole(text)
    if value > MOST_PIDS:
        raise ValueError(f"Linux allows at most {MOST_PIDS:,} processes.")
    return value


def _seconds(text: str) -> int | None:
    return _whole(text) if text else None


def _capabilities(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


_READERS: dict[str, Callable[[str], object]] = {
    "command": _words,
    "entrypoint": _words,
    "env": _env,
    "labels": _labels,
    "memory": _memory,
    "cpus": _cpus,
    "pids_limit": _pids,
    "retries": _whole,
    "stop_timeout_s": _seconds,
    "cap_add": _capabilities,
    "cap_drop": _capabilities,
}


def read_launch_form(form: Form) -> LaunchForm:
    """Read every field; faults of all fields come together."""
    values = {name: form.raw(name) if name == "env" else form.text(name) for name in TEXT_FIELDS}
    flags = frozenset(name for name in FLAG_FIELDS if form.flag(name))
    read: dict[str, object] = dict(values)
    faults: dict[str, str] = {}
    for name, reader in _READERS.items():
        try:
            read[name] = reader(values[name])
        except ValueError as error:
            faults[name] = str(error)
    if not values["image"]:
        faults["image"] = "Choose an image."
    if values["name"]:
        faults.update(_faults_of(lambda: check_name(values["name"])))
    config = None
    if not faults:
        try:
            config = _build(read, flags)
            check_config(config)
        except InvalidFields as error:
            faults.update(in_form_names(error.faults))
    is_good = config is not None and not faults
    return LaunchForm(values, flags, values["name"] or None, config if is_good else None, faults)


def _build(read: dict[str, object], flags: frozenset[str]) -> ContainerConfig:
    policy = parse_restart_policy(str(read["restart"]))
    if policy.name is RestartPolicyName.ON_FAILURE:
        retries = read["retries"]
        policy = RestartPolicy(policy.name, retries if isinstance(retries, int) else 0)
    return ContainerConfig(
        image=str(read["image"]),
        command=read["command"],  # type: ignore[arg-type]
        entrypoint=read["entrypoint"],  # type: ignore[arg-type]
        env=read["env"],  # type: ignore[arg-type]
        labels=read["labels"],  # type: ignore[arg-type]
        memory_bytes=read["memory"],  # type: ignore[arg-type]
        cpus=read["cpus"],  # type: ignore[arg-type]
        pids_limit=read["pids_limit"],  # type: ignore[arg-type]
        stop_timeout_s=read["stop_timeout_s"],  # type: ignore[arg-type]
        cap_add=read["cap_add"],  # type: ignore[arg-type]
        cap_drop=read["cap_drop"],  # type: ignore[arg-type]
        user=str(read["user"]),
        working_dir=str(read["working_dir"]),
        hostname=str(read["hostname"]),
        stop_signal=str(read["stop_signal"]),
        restart_policy=policy,
        tty="tty" in flags,
        init="init" in flags,
        auto_remove="auto_remove" in flags,
        read_only_root="read_only_root" in flags,
        no_new_privileges="no_new_privileges" in flags,
    )


def _faults_of(check: Callable[[], object]) -> dict[str, str]:
    try:
        check()
    except InvalidFields as error:
        return in_form_names(error.faults)
    return {}


def in_form_names(faults: Mapping[str, str]) -> dict[str, str]:
    """Faults by the form's field names; a field that the form lacks is said at the image."""
    known = {*TEXT_FIELDS, *FLAG_FIELDS}
    named: dict[str, str] = {}
    for engine_name, text in faults.items():
        name = _FORM_NAMES.get(engine_name, engine_name)
        named[name if name in known else "image"] = text
    return named


def values_of(container: Container) -> Form:
    """The form filled as an existing container was launched, to launch another like it."""
    config = container.config
    pairs = [
        ("image", config.image),
        ("command", shlex.join(config.command or ())),
        ("entrypoint", shlex.join(config.entrypoint or ())),
        ("env", "\n".join(config.env)),
        ("labels", "\n".join(f"{key}={value}" for key, value in config.labels.items())),
        ("memory", _size_text(config.memory_bytes)),
        ("cpus", f"{config.cpus:g}" if config.cpus else ""),
        ("pids_limit", str(config.pids_limit or "")),
        ("restart", config.restart_policy.name.value),
        ("retries", str(config.restart_policy.maximum_retries or "")),
        ("user", config.user),
        ("working_dir", config.working_dir),
        ("hostname", config.hostname),
        ("stop_signal", config.stop_signal),
        ("stop_timeout_s", "" if config.stop_timeout_s is None else str(config.stop_timeout_s)),
        ("cap_add", " ".join(config.cap_add)),
        ("cap_drop", " ".join(config.cap_drop)),
    ]
    pairs += [(name, "on") for name in FLAG_FIELDS if getattr(config, name)]
    return Form(pairs)


def _size_text(size_bytes: int) -> str:
    if not size_bytes:
        return ""
    for suffix, unit_bytes in (("g", GIB), ("m", MIB), ("k", KIB)):
        if size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{suffix}"
    return str(size_bytes)
