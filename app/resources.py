"""Where templates, static files, migrations and guest sources lie.

In a checkout they are directories of the repository; a wheel carries them in `app/bundle/`.
Imports nothing of `app`, so that every layer may ask.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BUNDLE = _PACKAGE / "bundle"
_ROOT = _BUNDLE if _BUNDLE.is_dir() else _PACKAGE.parent


def templates_dir() -> Path:
    """Jinja templates of the dashboard."""
    return _ROOT / "templates"


def static_dir() -> Path:
    """Files served under /static, with the browser assets in vendor/."""
    return _ROOT / "static"


def needed_assets() -> tuple[str, ...]:
    """Names under static/vendor/ that the dashboard can't do without."""
    return ("htmx.min.js",)


def migrations_dir() -> Path:
    """Alembic's script directory."""
    return _ROOT / "migrations"


def guest_dir() -> Path:
    """The LinuxKit file of the guest and the agent's C sources."""
    return _ROOT / "guest"


def unit_file() -> Path:
    """The systemd unit, with the path of an installation in /opt."""
    return _ROOT / "packaging/slipway.service"


def is_checkout() -> bool:
    """Whether this runs from the repository and not from an installed wheel."""
    return _ROOT != _BUNDLE
