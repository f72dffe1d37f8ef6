"""Health checks by Docker's rules (moby, daemon/health.go). Pure values."""

from dataclasses import dataclass, replace
from enum import StrEnum

from app.domain.image import Healthcheck

DEFAULT_INTERVAL_NS = 30 * 10**9
DEFAULT_TIMEOUT_NS = 30 * 10**9
DEFAULT_START_INTERVAL_NS = 5 * 10**9
DEFAULT_RETRIES = 3
KEPT_PROBES = 5
OUTPUT_LIMIT_BYTES = 4096
DEFAULT_SHELL = ("/bin/sh", "-c")
_NO_TEST = frozenset({"", "NONE"})


class HealthStatus(StrEnum):
    """What is believed of a container with a health check."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Probe:
    """One run of the check; exit code -1 if it could not run or took too long."""

    started_at_ns: int
    ended_at_ns: int
    exit_code: int
    output: str = ""


@dataclass(frozen=True)
class Health:
    """Present belief.

    Attributes:
        failing_streak: Failures in a row.
        probes: The newest KEPT_PROBES, oldest first.
    """

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    probes: tuple[Probe, ...] = ()


def effective_check(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The container's check, filled from the image's where it says nothing; None: no check."""
    if own is None or image is None:
        merged = own or image
    else:
        merged = Healthcheck(
            test=own.test or image.test,
            interval_ns=own.interval_ns or image.interval_ns,
            timeout_ns=own.timeout_ns or image.timeout_ns,
            start_period_ns=own.start_period_ns or image.start_period_ns,
            start_interval_ns=own.start_interval_ns or image.start_interval_ns,
            retries=own.retries or image.retries,
        )
    return merged


def probe_command(check: Healthcheck | None, shell: tuple[str, ...]) -> tuple[str, ...] | None:
    """What to run; None: the container has no check.

    Args:
        check: As `effective_check` gives it.
        shell: The image's, or empty.
    """
    if check is None or not check.test or check.test[0] in _NO_TEST:
        return None
    if check.test[0] == "CMD-SHELL":
        return (*(shell or DEFAULT_SHELL), *check.test[1:])
    return check.test[1:] or None


def next_interval_ns(check: Healthcheck, health: Health, *, running_ns: int) -> int:
    """How long to wait before the next probe of a container that has run so long."""
    if running_ns < check.start_period_ns and health.status is HealthStatus.STARTING:
        return check.start_interval_ns or DEFAULT_START_INTERVAL_NS
    return check.interval_ns or DEFAULT_INTERVAL_NS


def after_probe(health: Health, probe: Probe, check: Healthcheck, *, running_ns: int) -> Health:
    """What is believed after one more probe, begun when the container had run so long."""
    probes = (*health.probes, probe)[-KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health(HealthStatus.HEALTHY, 0, probes)
    if health.status is HealthStatus.STARTING and running_ns < check.start_period_ns:
        return replace(health, probes=probes)
    streak = health.failing_streak + 1
    failed = streak >= (check.retries or DEFAULT_RETRIES)
    return Health(HealthStatus.UNHEALTHY if failed else health.status, streak, probes)


def after_stop(health: Health) -> Health:
    """Docker calls a container unhealthy once nobody checks it any more."""
    return replace(health, status=HealthStatus.UNHEALTHY)
