"""Docker's rules of health checks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.health import (
    KEPT_PROBES,
    Health,
    HealthStatus,
    Probe,
    after_probe,
    after_stop,
    effective_check,
    next_interval_ns,
    probe_command,
)
from app.domain.image import Healthcheck

S = 10**9
CHECK = Healthcheck(("CMD", "true"), interval_ns=2 * S, retries=2, start_period_ns=10 * S)


def probe(exit_code: int) -> Probe:
    return Probe(0, 1, exit_code)


def after(*exit_codes: int, running_s: int = 60, health: Health | None = None) -> Health:
    health = health or Health()
    for exit_code in exit_codes:
        health = after_probe(health, probe(exit_code), CHECK, running_ns=running_s * S)
    return health


@pytest.mark.parametrize(
    ("exit_codes", "status", "streak"),
    [
        ((0,), "healthy", 0),
        ((1,), "starting", 1),
        ((1, 1), "unhealthy", 2),
        ((0, 1), "healthy", 1),
        ((0, 1, -1), "unhealthy", 2),
        ((1, 1, 0), "healthy", 0),
    ],
)
def test_status(exit_codes: tuple[int, ...], status: str, streak: int) -> None:
    health = after(*exit_codes)
    assert (health.status, health.failing_streak) == (status, streak)


def test_failures_of_the_start_period_do_not_count() -> None:
    assert after(1, 1, 1, running_s=5).status is HealthStatus.STARTING
    assert after(1, 1, 1, running_s=5).failing_streak == 0
    assert after(0, 1, 1, running_s=5).status is HealthStatus.UNHEALTHY


@given(st.lists(st.sampled_from([0, 1, 2, -1]), max_size=20))
def test_at_most_five_results_are_kept(exit_codes: list[int]) -> None:
    kept = after(*exit_codes).probes
    assert [each.exit_code for each in kept] == exit_codes[-KEPT_PROBES:]


def test_intervals() -> None:
    assert next_interval_ns(CHECK, Health(), running_ns=0) == 5 * S
    assert next_interval_ns(CHECK, Health(HealthStatus.HEALTHY), running_ns=0) == 2 * S
    assert next_interval_ns(CHECK, Health(), running_ns=20 * S) == 2 * S
    assert next_interval_ns(Healthcheck(("CMD", "x")), Health(), running_ns=0) == 30 * S


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a b"), ("/bin/sh", "-c", "a b")),
        (("NONE",), None),
        ((), None),
        (("CMD",), None),
    ],
)
def test_probe_command(test: tuple[str, ...], command: tuple[str, ...] | None) -> None:
    assert probe_command(Healthcheck(test), ()) == command


def test_the_images_shell_runs_the_check() -> None:
    assert probe_command(Healthcheck(("CMD-SHELL", "x")), ("/bin/bash", "-c"))[0] == "/bin/bash"  # type: ignore[index]


def test_what_the_container_does_not_say_is_the_images() -> None:
    merged = effective_check(Healthcheck((), retries=5), CHECK)
    assert merged is not None
    assert (merged.test, merged.retries, merged.interval_ns) == (("CMD", "true"), 5, 2 * S)
    assert effective_check(None, CHECK) is CHECK
    assert effective_check(None, None) is None


def test_nobody_checks_is_unhealthy() -> None:
    assert after_stop(after(0)).status is HealthStatus.UNHEALTHY
