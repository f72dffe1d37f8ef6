"""Restart policies by Docker's rule (moby, libcontainerd/.../restartmanager)."""

from dataclasses import dataclass
from enum import StrEnum

from app.core.errors import InvalidFields

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
STEADY_AFTER_S = 10.0


class RestartPolicyName(StrEnum):
    """When an ended container is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True)
class RestartPolicy:
    """A policy; `maximum_retries` 0 means without end and goes with on-failure only."""

    name: RestartPolicyName = RestartPolicyName.NO
    maximum_retries: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.maximum_retries}" if self.maximum_retries else str(self.name)


NO_RESTART = RestartPolicy()


def parse_restart_policy(text: str) -> RestartPolicy:
    """Read `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`.

    Raises:
        InvalidFields: It is none of them.
    """
    name, colon, retries = text.partition(":")
    known = (name or "no") in tuple(RestartPolicyName)
    if not known or (colon and (name != RestartPolicyName.ON_FAILURE or not retries.isdecimal())):
        raise InvalidFields(
            {
                "restart_policy": f"Restart policy {text!r} is none of no, always, "
                "unless-stopped, on-failure, on-failure:N"
            }
        )
    return RestartPolicy(RestartPolicyName(name or "no"), int(retries) if retries else 0)


def should_restart(
    policy: RestartPolicy, *, exit_code: int, restart_count: int, stopped_by_user: bool
) -> bool:
    """Whether a container that just ended is started again."""
    if stopped_by_user:
        return False
    match policy.name:
        case RestartPolicyName.NO:
            return False
        case RestartPolicyName.ON_FAILURE:
            retries_left = not policy.maximum_retries or restart_count < policy.maximum_retries
            return exit_code != 0 and retries_left
        case RestartPolicyName.ALWAYS | RestartPolicyName.UNLESS_STOPPED:
            return True


def should_start_with_engine(policy: RestartPolicy, *, stopped_by_user: bool) -> bool:
    """Whether a container found ended at the engine's start is started.

    `always` comes back even after a stop by hand, `unless-stopped` does not: the difference
    between the two in Docker.
    """
    match policy.name:
        case RestartPolicyName.ALWAYS:
            return True
        case RestartPolicyName.UNLESS_STOPPED:
            return not stopped_by_user
        case RestartPolicyName.NO | RestartPolicyName.ON_FAILURE:
            return False


def next_delay_s(previous_delay_s: float, *, ran_for_s: float) -> float:
    """Back-off before the next start: 100 ms doubling to a minute, anew after 10 s up."""
    if previous_delay_s == 0 or ran_for_s >= STEADY_AFTER_S:
        return FIRST_DELAY_S
    return min(previous_delay_s * 2, LONGEST_DELAY_S)
