"""Durations as Docker tells them to people (docker/go-units)."""

_MINUTE_S, _HOUR_S = 60, 3600
_WEEK_HOURS, _MONTH_HOURS, _YEAR_HOURS = 24 * 7, 24 * 30, 24 * 365


def human_duration(seconds: float) -> str:
    """go-units HumanDuration: "Less than a second", "3 seconds", "About a minute", "2 weeks"."""
    whole = int(seconds)
    if whole < _MINUTE_S:
        return _seconds(whole)
    minutes = whole // _MINUTE_S
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / _HOUR_S + 0.5)
    for limit, text in (
        (2, "About an hour"),
        (48, f"{hours} hours"),
        (_WEEK_HOURS * 2, f"{hours // 24} days"),
        (_MONTH_HOURS * 2, f"{hours // _WEEK_HOURS} weeks"),
        (_YEAR_HOURS * 2, f"{hours // _MONTH_HOURS} months"),
    ):
        if hours < limit:
            return text
    return f"{whole // _HOUR_S // _YEAR_HOURS} years"


def _seconds(whole: int) -> str:
    if whole < 1:
        return "Less than a second"
    return "1 second" if whole == 1 else f"{whole} seconds"
