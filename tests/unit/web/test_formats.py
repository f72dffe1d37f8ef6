import pytest

from app.core.units import GIB, KIB, MIB
from app.web import formats


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (MIB - 1, "1.0 MiB"),
        (366 * MIB, "366 MiB"),
        (GIB - 1, "1.00 GiB"),
        (int(1.8 * GIB), "1.80 GiB"),
        (16 * GIB, "16.0 GiB"),
        (151 * GIB, "151 GiB"),
        (2048 * GIB, "2.00 TiB"),
    ],
)
def test_size_has_three_digits(size_bytes: int, text: str) -> None:
    assert formats.size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 m"),
        (18_720, "5 h 12 m"),
        (273_600, "3 d 04 h"),
    ],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_milliseconds_become_seconds_from_one_second() -> None:
    assert (formats.milliseconds(999.4), formats.milliseconds(1210)) == ("999 ms", "1.21 s")


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.04, "0"), (4.26, "4.3"), (38.4, "38")])
def test_percent_has_a_decimal_below_ten(value: float, text: str) -> None:
    assert formats.percent(value) == text


def test_times_are_utc() -> None:
    moment_ns = 1_795_510_800_123_456_789
    assert formats.clock(moment_ns) == "09:00:00"
    assert formats.day_and_clock(moment_ns) == "24 Nov 09:00:00"
    assert formats.iso_time(moment_ns) == "2026-11-24T09:00:00.123Z"


def test_share_of_nothing_is_nothing() -> None:
    assert formats.share(5, 0) == 0.0
    assert formats.share(1, 4) == 250.0
