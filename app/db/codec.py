"""Domain values as JSON text with a version, for columns that nothing queries.

A reader takes its own version only; a change of shape raises the version and adds a step that lifts
the older one. JSON is ASCII, so that any string survives, lone surrogates included.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, TypeVar

from app.core.errors import CorruptData
from app.domain.container import ContainerConfig
from app.domain.container_options import CpuTuning, DeviceMapping, Ulimit
from app.domain.image import Healthcheck
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.domain.vm import BootStage

T = TypeVar("T")
CONFIG_VERSION = 2
KEPT_CONFIGS = 4096  # lists read all of them each time
BOOT_STAGES_VERSION = 1
_TUPLE_FIELDS = (
    "command",
    "entrypoint",
    "env",
    "cap_add",
    "cap_drop",
    "exposed_ports",
    "groups",
    "extra_hosts",
    "dns_servers",
    "dns_options",
    "dns_search",
    "security_options",
    "masked_paths",
    "read_only_paths",
)
_CONFIG_FIELDS = frozenset(field.name for field in fields(ContainerConfig))


def encode_config(config: ContainerConfig) -> str:
    """`{"version": 2, "config": {…}}` with the names of the domain's fields."""
    return _dump({"version": CONFIG_VERSION, "config": asdict(config)})


@lru_cache(maxsize=KEPT_CONFIGS)
def decode_config(encoded: str) -> ContainerConfig:
    """Read what encode_config wrote; the same text gives the same value, which nobody changes.

    Raises:
        CorruptData: It is something else, or a newer version.
    """

    def build(stored: dict[str, Any]) -> ContainerConfig:
        values = {name: value for name, value in stored.items() if name in _CONFIG_FIELDS}
        for name in _TUPLE_FIELDS:
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        policy = values["restart_policy"]
        values["restart_policy"] = RestartPolicy(
            RestartPolicyName(policy["name"]), policy["maximum_retries"]
        )
        if stored.get("healthcheck") is not None:
            health = stored["healthcheck"]
            values["healthcheck"] = Healthcheck(**health | {"test": tuple(health["test"])})
        values["cpu_tuning"] = CpuTuning(**stored["cpu_tuning"])
        values["ulimits"] = tuple(Ulimit(**limit) for limit in stored["ulimits"])
        values["devices"] = tuple(DeviceMapping(**device) for device in stored["devices"])
        return ContainerConfig(**values)

    return _load(encoded, "config", CONFIG_VERSION, build, lift=_lift_config)


def _lift_config(stored: dict[str, Any], version: int) -> dict[str, Any]:
    """Version 1 had fewer fields; what it lacks is as nothing asked for."""
    if version != 1:
        raise ValueError(version)
    return stored | {"cpu_tuning": {}, "ulimits": [], "devices": []}


def encode_boot_stages(stages: tuple[BootStage, ...]) -> str:
    """`{"version": 1, "boot_stages": [[name, duration_ms], …]}`."""
    listed = [[stage.name, stage.duration_ms] for stage in stages]
    return _dump({"version": BOOT_STAGES_VERSION, "boot_stages": listed})


def decode_boot_stages(encoded: str) -> tuple[BootStage, ...]:
    """Read what encode_boot_stages wrote.

    Raises:
        CorruptData: It is something else, or a newer version.
    """
    return _load(
        encoded,
        "boot_stages",
        BOOT_STAGES_VERSION,
        lambda stored: tuple(BootStage(str(name), float(ms)) for name, ms in stored),
    )


def encode_attributes(attributes: dict[str, str]) -> str:
    """A plain JSON object; an event's attributes are strings by name and stay so."""
    return _dump(attributes)


def decode_attributes(encoded: str) -> dict[str, str]:
    """Read what encode_attributes wrote.

    Raises:
        CorruptData: It is something else.
    """
    try:
        return {str(name): str(value) for name, value in json.loads(encoded).items()}
    except (ValueError, AttributeError) as error:
        raise CorruptData(f"The database holds unreadable event attributes: {error}") from error


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _load(
    encoded: str,
    key: str,
    version: int,
    build: Callable[[Any], T],
    *,
    lift: Callable[[Any, int], Any] | None = None,
) -> T:
    try:
        document = json.loads(encoded)
        stored_version = document["version"]
        if stored_version == version:
            return build(document[key])
        if lift is not None and stored_version < version:
            return build(lift(document[key], stored_version))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptData(f"The database holds an unreadable {key}: {error!r}") from error
    raise CorruptData(
        f"The database holds a {key} of version {stored_version}; this release knows {version}",
        advice="Use the release of Slipway that wrote the database, or a newer one.",
    )
