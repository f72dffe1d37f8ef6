"""Reads the settings and says plainly which one is wrong."""

from pydantic import ValidationError

from app.core.errors import InvalidArgument
from app.settings import Settings


def read_settings() -> Settings:
    """Settings from the environment.

    Raises:
        InvalidArgument: A value makes no sense; every wrong one is named.
    """
    try:
        return Settings()
    except ValidationError as exc:
        wrong = []
        for error in exc.errors():
            field = "_".join(str(part) for part in error["loc"])
            wrong.append(f"SLIPWAY_{field.upper()}={error['input']!s}: {error['msg']}")
        raise InvalidArgument(
            "Settings are wrong: " + "; ".join(wrong),
            advice="Correct the environment variables; docs/settings.md lists them.",
        ) from exc
