import pytest

from app.cli.configuration import read_settings
from app.core.errors import InvalidArgument


def test_every_wrong_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "99999")
    monkeypatch.setenv("SLIPWAY_ACCELERATOR", "magic")
    with pytest.raises(InvalidArgument) as failure:
        read_settings()
    assert "SLIPWAY_PORT=99999" in failure.value.message
    assert "SLIPWAY_ACCELERATOR=magic" in failure.value.message


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_PORT", "9090")
    assert read_settings().port == 9090
