"""How numbers and times are written for people; used as template filters and by live updates."""

from datetime import UTC, datetime

from app.core.units import GIB, KIB, MIB

NS_PER_S = 1_000_000_000
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400


def size_parts(size_bytes: float) -> tuple[str, str]:
    """Three significant digits and a binary unit, apart, so that units get an ink of their own."""
    for unit_bytes, unit in ((1024 * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit_bytes * 0.9995:
            value = size_bytes / unit_bytes
            digits = 2 if value < 9.995 and unit_bytes >= GIB else 1 if value < 99.95 else 0
            digits = 0 if unit_bytes < GIB and value >= 9.95 else digits
            return f"{value:.{digits}f}", unit
    return f"{size_bytes:.0f}", "B"


def size(size_bytes: float) -> str:
    """As `size_parts`, in one text: "366 MiB"."""
    return " ".join(size_parts(size_bytes))


def duration(seconds: float) -> str:
    """At most two units: "41 d 02 h", "5 h 12 m", "14 m", "4 s"."""
    whole_s = max(int(seconds), 0)
    if whole_s >= _DAY_S:
        return f"{whole_s // _DAY_S} d {whole_s % _DAY_S // _HOUR_S:02d} h"
    if whole_s >= _HOUR_S:
        return f"{whole_s // _HOUR_S} h {whole_s % _HOUR_S // _MINUTE_S:02d} m"
    if whole_s >= _MINUTE_S:
        return f"{whole_s // _MINUTE_S} m"
    return f"{whole_s} s"


def age(then_ns: int, now_ns: int) -> str:
    """How long `then_ns` is ago."""
    return duration((now_ns - then_ns) / NS_PER_S)


def milliseconds(value_ms: float) -> str:
    """As "62 ms" below a second, "2.31 s" from there."""
    return f"{value_ms:.0f} ms" if value_ms < 999.5 else f"{value_ms / 1000:.2f} s"


def percent(value: float) -> str:
    """Whole percents, one decimal below ten."""
    return f"{value:.1f}" if 0.05 <= value < 9.95 else f"{value:.0f}"


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / NS_PER_S, tz=UTC)


def clock(time_ns: int) -> str:
    """Time of day in UTC: "14:05:18"."""
    return _moment(time_ns).strftime("%H:%M:%S")


def day_and_clock(time_ns: int) -> str:
    """Day and time in UTC: "24 Nov 10:01:14"."""
    return _moment(time_ns).strftime("%d %b %H:%M:%S")


def iso_time(time_ns: int) -> str:
    """For `<time datetime>`: RFC 3339 in UTC, to the millisecond."""
    return _moment(time_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def counted(number: int, noun: str) -> str:
    """As "1 container", "3 containers"; English nouns with a regular plural only."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def share(part: float, total: float) -> float:
    """A length of a bar that is 1000 units wide; SVG loses precision with bytes as units."""
    return round(1000 * part / total, 2) if total > 0 else 0.0
