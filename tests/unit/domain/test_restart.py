import pytest

from app.core.errors import InvalidFields
from app.domain.restart import (
    RestartPolicy,
    RestartPolicyName,
    next_delay_s,
    parse_restart_policy,
    should_restart,
    should_start_with_engine,
)


@pytest.mark.parametrize("text", ["no", "always", "unless-stopped", "on-failure", "on-failure:5"])
def test_parse_round_trip(text: str) -> None:
    assert str(parse_restart_policy(text)) == text


@pytest.mark.parametrize("text", ["sometimes", "always:3", "on-failure:", "on-failure:-1", "no:0"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidFields, match="Restart policy"):
        parse_restart_policy(text)


@pytest.mark.parametrize(
    ("policy", "exit_code", "restart_count", "expected"),
    [
        ("no", 1, 0, False),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 99, True),
        ("on-failure:2", 1, 1, True),
        ("on-failure:2", 1, 2, False),
        ("always", 0, 9, True),
        ("unless-stopped", 0, 9, True),
    ],
)
def test_should_restart(policy: str, exit_code: int, restart_count: int, expected: bool) -> None:
    parsed = parse_restart_policy(policy)
    decided = should_restart(
        parsed, exit_code=exit_code, restart_count=restart_count, stopped_by_user=False
    )
    assert decided is expected


@pytest.mark.parametrize("name", list(RestartPolicyName))
def test_no_policy_restarts_what_a_user_stopped(name: RestartPolicyName) -> None:
    assert not should_restart(
        RestartPolicy(name), exit_code=1, restart_count=0, stopped_by_user=True
    )


def test_only_always_comes_back_with_the_engine_after_a_stop() -> None:
    back = [
        n
        for n in RestartPolicyName
        if should_start_with_engine(RestartPolicy(n), stopped_by_user=True)
    ]
    assert back == [RestartPolicyName.ALWAYS]


def test_back_off_doubles_to_a_minute_and_starts_anew() -> None:
    delays_s = [0.0]
    for _ in range(12):
        delays_s.append(next_delay_s(delays_s[-1], ran_for_s=1))
    assert delays_s[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays_s[-1] == 60.0
    assert next_delay_s(60.0, ran_for_s=10) == 0.1
