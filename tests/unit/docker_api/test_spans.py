"""Durations for people: as go-units says them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.docker_api.spans import human_duration

HOUR_S, DAY_S = 3600, 86_400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (3 * 60, "3 minutes"),
        (HOUR_S, "About an hour"),
        (89 * 60, "About an hour"),
        (91 * 60, "2 hours"),
        (3 * HOUR_S, "3 hours"),
        (47 * HOUR_S, "47 hours"),
        (2 * DAY_S, "2 days"),
        (13 * DAY_S, "13 days"),
        (14 * DAY_S, "2 weeks"),
        (59 * DAY_S, "8 weeks"),
        (60 * DAY_S, "2 months"),
        (2 * 365 * DAY_S, "2 years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e10))
def test_every_duration_has_words(seconds: float) -> None:
    assert re.fullmatch(
        r"(Less than a second|About an? \w+|\d+ (second|minute|hour|day|week|month|year)s?)",
        human_duration(seconds),
    )


@given(st.floats(min_value=120, max_value=1e9), st.floats(min_value=120, max_value=1e9))
def test_longer_never_sounds_shorter(one: float, other: float) -> None:
    units = ["seconds", "minutes", "hour", "hours", "days", "weeks", "months", "years"]

    def size(seconds: float) -> tuple[int, int]:
        words = human_duration(seconds).split()
        return units.index(words[-1]), int(words[0]) if words[0].isdecimal() else 1

    shorter, longer = sorted((one, other))
    assert size(shorter) <= size(longer)
