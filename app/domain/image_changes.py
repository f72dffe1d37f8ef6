"""Changes of an image's settings in a Dockerfile's words (`docker import --change`, `commit`)."""

import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta

from app.core.errors import InvalidArgument
from app.domain.health import DEFAULT_SHELL
from app.domain.image import Healthcheck, ImageConfig

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """Apply instructions in order.

    Raises:
        InvalidArgument: One is unknown here, or malformed; in the words of Docker's builder.
    """
    for change in changes:
        for line in change.splitlines():
            word, _, rest = line.strip().partition(" ")
            if not word:
                continue
            apply = _INSTRUCTIONS.get(word.upper())
            if apply is None:
                raise InvalidArgument(f"{word} is not a valid change command")
            if not rest.strip():
                raise InvalidArgument(f"{word.upper()} requires at least one argument")
            config = apply(config, rest.strip())
    return config


def exec_or_shell(rest: str, config: ImageConfig) -> tuple[str, ...]:
    """Arguments of CMD and ENTRYPOINT: a JSON list, or a line for the shell."""
    words = json_words(rest)
    return words if words is not None else (*(config.shell or DEFAULT_SHELL), rest)


def json_words(rest: str) -> tuple[str, ...] | None:
    """A JSON list of strings; None for anything else."""
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None


def pairs(rest: str, instruction: str) -> list[tuple[str, str]]:
    """`key=value …` with quotes, or `key value` of old Dockerfiles.

    Raises:
        InvalidArgument: A word has no "=".
    """
    words = _split(rest, instruction)
    if words and "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidArgument(f"{instruction} must have two arguments")
        return [(name, value.strip())]
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidArgument(
                f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: "
                "name=value"
            )
        found.append((name, value))
    return found


def _split(rest: str, instruction: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise InvalidArgument(f"{instruction}: {error}") from error


def _env(config: ImageConfig, rest: str) -> ImageConfig:
    env = list(config.env)
    for name, value in pairs(rest, "ENV"):
        entry = f"{name}={value}"
        places = [place for place, old in enumerate(env) if old.partition("=")[0] == name]
        if places:
            env[places[0]] = entry
        else:
            env.append(entry)
    return replace(config, env=tuple(env))


def _label(config: ImageConfig, rest: str) -> ImageConfig:
    return replace(config, labels={**config.labels, **dict(pairs(rest, "LABEL"))})


def _expose(config: ImageConfig, rest: str) -> ImageConfig:
    ports = {word if "/" in word else f"{word}/tcp" for word in rest.lower().split()}
    for port in ports:
        number, _, protocol = port.partition("/")
        if not number.replace("-", "", 1).isdecimal() or protocol not in {"tcp", "udp", "sctp"}:
            raise InvalidArgument(f"invalid containerPort: {port}")
    return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *ports})))


def _volume(config: ImageConfig, rest: str) -> ImageConfig:
    paths = json_words(rest) or tuple(_split(rest, "VOLUME"))
    return replace(config, volumes=tuple(sorted({*config.volumes, *paths})))


def _workdir(config: ImageConfig, rest: str) -> ImageConfig:
    path = rest if rest.startswith("/") else f"{config.working_dir.rstrip('/')}/{rest}"
    return replace(config, working_dir=path)


def _shell(config: ImageConfig, rest: str) -> ImageConfig:
    words = json_words(rest)
    if not words:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    return replace(config, shell=words)


def _healthcheck(config: ImageConfig, rest: str) -> ImageConfig:
    if rest.upper() == "NONE":
        return replace(config, healthcheck=Healthcheck(("NONE",)))
    numbers: dict[str, int] = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        name, _, value = option[2:].partition("=")
        if name == "retries" and value.isdecimal():
            numbers["retries"] = int(value)
        elif name in _HEALTH_OPTIONS:
            numbers[_HEALTH_OPTIONS[name]] = duration_ns(value)
        else:
            raise InvalidArgument(f"Unknown flag: {name}")
    kind, _, command = rest.strip().partition(" ")
    if kind.upper() != "CMD" or not command.strip():
        raise InvalidArgument(f"Unknown type {json.dumps(kind)} in HEALTHCHECK (try CMD)")
    words = json_words(command.strip())
    test = ("CMD-SHELL", command.strip()) if words is None else ("CMD", *words)
    return replace(config, healthcheck=Healthcheck(test, **numbers))


_HEALTH_OPTIONS = {
    "interval": "interval_ns",
    "timeout": "timeout_ns",
    "start-period": "start_period_ns",
    "start-interval": "start_interval_ns",
}


def duration_ns(text: str) -> int:
    """A duration as Go writes it: `1m30s`, `500ms`.

    Raises:
        InvalidArgument: It is none.
    """
    rest, total_s = text, 0.0
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsnu"))]
        rest = rest[len(unit) :]
        if unit not in _UNITS_S or not digits.replace(".", "", 1).isdecimal():
            raise InvalidArgument(f"time: invalid duration {json.dumps(text)}")
        total_s += float(digits) * _UNITS_S[unit]
    return timedelta(seconds=total_s) // timedelta(microseconds=1) * 1000


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, rest: replace(config, cmd=exec_or_shell(rest, config)),
    "ENTRYPOINT": lambda config, rest: replace(config, entrypoint=exec_or_shell(rest, config)),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "SHELL": _shell,
    "STOPSIGNAL": lambda config, rest: replace(config, stop_signal=rest),
    "USER": lambda config, rest: replace(config, user=rest),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
