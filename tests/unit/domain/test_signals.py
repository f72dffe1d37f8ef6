import signal

import pytest

from app.core.errors import InvalidFields
from app.domain.signals import signal_number


@pytest.mark.parametrize("text", ["SIGTERM", "TERM", "term", "15", "sigterm"])
def test_every_spelling(text: str) -> None:
    assert signal_number(text) == 15


def test_names_agree_with_linux() -> None:
    for known in signal.Signals:
        if known.name not in {"SIGRTMIN", "SIGRTMAX"}:
            assert signal_number(known.name) == known.value


@pytest.mark.parametrize(("text", "number"), [("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)])
def test_realtime(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+31", "RTMAX+1", "-9", "9.0"])
def test_unknown(text: str) -> None:
    with pytest.raises(InvalidFields, match="Invalid signal"):
        signal_number(text)
