"""Whether what an operator asks for can be: every field on its own and together."""

import re
from ipaddress import ip_address

from app.core.errors import InvalidFields
from app.core.units import MIB
from app.domain.container_config import ContainerConfig
from app.domain.container_options import RESOURCES, UNLIMITED
from app.domain.restart import RestartPolicyName
from app.domain.signals import signal_number

MINIMUM_MEMORY_BYTES = 6 * MIB  # as Docker
MAXIMUM_CPUS = 256
NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # moby, daemon/names
LABEL_LIMIT_BYTES = 64 * 1024
SHORTEST_HEALTH_NS = 1_000_000  # moby, runconfig, MinimumDuration
_SYSCTL = re.compile(r"[a-zA-Z0-9_-]+([./][a-zA-Z0-9_-]+)+")
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
ENV_LIMIT_BYTES = 96 * 1024  # argv and env together fit a request of 256 KiB


def check_name(name: str) -> str:
    """Return the name without Docker's leading slash.

    Raises:
        InvalidFields: It has other characters than Docker allows.
    """
    name = name.removeprefix("/")
    if not NAME_PATTERN.fullmatch(name) or len(name) > 255:
        raise InvalidFields(
            {
                "name": f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are "
                "allowed, two characters or more"
            }
        )
    return name


def check_config(config: ContainerConfig) -> None:
    """Check every field on its own and together.

    Raises:
        InvalidFields: One text for each faulty field.
    """
    faults: dict[str, str] = {}
    for check in (
        _check_process,
        _check_health,
        _check_memory,
        _check_limits,
        _check_places,
        _check_names,
        _check_policy,
    ):
        faults.update(check(config))
    if faults:
        raise InvalidFields(faults)


def _check_words(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    words = (*(config.command or ()), *(config.entrypoint or ()), *config.env)
    if any("\0" in word for word in (*words, config.user, config.working_dir, config.hostname)):
        faults["command"] = "Command, environment, user and directories can't contain NUL"
    if sum(len(word.encode()) + 1 for word in words) > ENV_LIMIT_BYTES:
        faults["env"] = "Command and environment together are longer than 96 KiB"
    return faults


def _check_process(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    faults.update(_check_words(config))
    for entry in config.env:
        if not entry.partition("=")[0]:
            faults["env"] = f"Environment entry {entry!r} has no name before '='"
    if config.working_dir and not config.working_dir.startswith("/"):
        faults["working_dir"] = (
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute "
            "path"
        )
    if config.hostname and not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,62})", config.hostname):
        faults["hostname"] = f"Host name {config.hostname!r} is not a valid name of 1 to 63 letters"
    if config.stop_signal:
        try:
            signal_number(config.stop_signal)
        except InvalidFields:
            faults["stop_signal"] = f"Signal {config.stop_signal!r} is not known"
    if sum(len(k) + len(v) for k, v in config.labels.items()) > LABEL_LIMIT_BYTES:
        faults["labels"] = "Labels together are longer than 64 KiB"
    if any(not key for key in config.labels):
        faults["labels"] = "A label has no name"
    return faults


def _check_health(config: ContainerConfig) -> dict[str, str]:
    health = config.healthcheck
    if health is None:
        return {}
    durations_ns = {
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
    }
    for name, duration_ns in durations_ns.items():
        if duration_ns and duration_ns < SHORTEST_HEALTH_NS:
            return {"healthcheck": f"{name} in Healthcheck cannot be less than 1ms"}
    if health.retries < 0:
        return {"healthcheck": "Retries in Healthcheck cannot be negative"}
    if health.test and health.test[0] not in {"NONE", "CMD", "CMD-SHELL"}:
        return {"healthcheck": f"Unknown type {health.test[0]!r} of Healthcheck"}
    return {}


def _check_memory(config: ContainerConfig) -> dict[str, str]:
    """Texts of moby, daemon/daemon_unix.go, verifyPlatformContainerResources."""
    memory_bytes, both_bytes = config.memory_bytes, config.memory_swap_bytes
    if memory_bytes and memory_bytes < MINIMUM_MEMORY_BYTES:
        return {"memory_bytes": "Minimum memory limit allowed is 6MB"}
    if both_bytes > 0 and not memory_bytes:
        return {
            "memory_swap_bytes": "You should always set the Memory limit when using Memoryswap "
            "limit, see usage"
        }
    if 0 < both_bytes < memory_bytes:
        return {
            "memory_swap_bytes": "Minimum memoryswap limit should be larger than memory limit, "
            "see usage"
        }
    reservation_bytes = config.memory_reservation_bytes
    if reservation_bytes and reservation_bytes < MINIMUM_MEMORY_BYTES:
        return {"memory_reservation_bytes": "Minimum memory reservation allowed is 6MB"}
    if memory_bytes and reservation_bytes > memory_bytes:
        return {
            "memory_reservation_bytes": "Minimum memory limit can not be less than memory "
            "reservation limit, see usage"
        }
    return {}


def _check_limits(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    if not 0 <= config.cpus <= MAXIMUM_CPUS:
        faults["cpus"] = f"CPUs must lie between 0 (no limit) and {MAXIMUM_CPUS}"
    faults.update(_check_cpu_tuning(config))
    if config.pids_limit < 0:
        faults["pids_limit"] = "The process limit can't be negative"
    if config.stop_timeout_s is not None and config.stop_timeout_s < 0:
        faults["stop_timeout_s"] = "The stop timeout can't be negative"
    if config.shm_bytes < 0:
        faults["shm_bytes"] = "SHM size can not be less than 0"
    if not -1000 <= config.oom_score_adj <= 1000:
        faults["oom_score_adj"] = (
            f"Invalid value {config.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    faults.update(_check_devices(config))
    faults.update(_check_ulimits(config))
    return faults


def _check_devices(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    for device in config.devices:
        if not device.permissions or set(device.permissions) - set("rwm"):
            faults["devices"] = f"invalid device mode: {device.permissions}"
        elif not (device.source.startswith("/dev/") and device.target.startswith("/")):
            faults["devices"] = f"{device.source} is no device of the virtual machine"
    return faults


def _check_ulimits(config: ContainerConfig) -> dict[str, str]:
    faults: dict[str, str] = {}
    for limit in config.ulimits:
        if limit.name not in RESOURCES:
            faults["ulimits"] = f"invalid ulimit type: {limit.name}"
        elif limit.soft > limit.hard != UNLIMITED or (limit.soft == UNLIMITED != limit.hard):
            faults["ulimits"] = (
                f"ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )
    return faults


def _check_cpu_tuning(config: ContainerConfig) -> dict[str, str]:
    tuning = config.cpu_tuning
    if config.cpus and (tuning.period_us or tuning.quota_us):
        other = "Period" if tuning.period_us else "Quota"
        return {"cpus": f"Conflicting options: Nano CPUs and CPU {other} cannot both be set"}
    if tuning.period_us and not 1000 <= tuning.period_us <= 1_000_000:
        return {
            "cpu_period_us": "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than "
            "1s (i.e. 1000000)"
        }
    if 0 < tuning.quota_us < 1000:
        return {"cpu_quota_us": "CPU cfs quota can not be less than 1ms (i.e. 1000)"}
    for name, text in (("cpus", tuning.cpuset_cpus), ("mems", tuning.cpuset_mems)):
        if text and not _CPUSET.fullmatch(text):
            return {f"cpuset_{name}": f"Invalid value {text} for cpuset {name}"}
    return {}


def _check_places(config: ContainerConfig) -> dict[str, str]:
    """Paths in the container, and what goes with them."""
    for path, options in config.tmpfs.items():
        if not path.startswith("/") or "\0" in path + options:
            return {"tmpfs": f"invalid mount path: '{path}' mount path must be absolute"}
    for path in (*(config.masked_paths or ()), *(config.read_only_paths or ())):
        if not path.startswith("/") or "\0" in path:
            return {"masked_paths": f"the path {path!r} is not absolute"}
    for name, value in config.sysctls.items():
        if not _SYSCTL.fullmatch(name) or "\0" in value:
            return {"sysctls": f"invalid sysctl {name!r}"}
    return {}


def _check_names(config: ContainerConfig) -> dict[str, str]:
    """What ends up in /etc/hosts and /etc/resolv.conf: a line must stay a line."""
    for entry in config.extra_hosts:
        name, colon, address = entry.partition(":")
        if not colon or not _is_host_name(name) or not _is_address(address.strip("[]")):
            return {"extra_hosts": f'bad format for add-host: "{entry}"'}
    for server in config.dns_servers:
        if not _is_address(server):
            return {"dns_servers": f"invalid IP address: {server}"}
    for word in (*config.dns_options, *config.dns_search, config.domainname):
        if any(letter.isspace() or letter == "\0" for letter in word):
            return {"dns_search": f"{word!r} is not one word"}
    return {}


def _is_host_name(text: str) -> bool:
    return bool(text) and not any(letter.isspace() or letter in "\0#" for letter in text)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_policy(config: ContainerConfig) -> dict[str, str]:
    policy = config.restart_policy
    if policy.maximum_retries < 0:
        return {"restart_policy": "The retry count can't be negative"}
    if policy.maximum_retries and policy.name is not RestartPolicyName.ON_FAILURE:
        return {"restart_policy": f"Policy {policy.name} takes no retry count"}
    if config.auto_remove and policy.name is not RestartPolicyName.NO:
        return {"auto_remove": "can't create 'AutoRemove' container with restart policy"}
    return {}
