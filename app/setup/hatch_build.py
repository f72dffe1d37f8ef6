"""Build hook: what a wheel carries beside code, browser assets fetched first if there are none."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ("guest", "migrations", "packaging", "static", "templates")
LEFT_OUT = frozenset({"__pycache__", "build", "tests"})  # what building and testing leave there
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from app.setup.assets import find_npm, is_up_to_date, set_up_assets  # noqa: E402  (path set above)
from app.setup.steps import SetupFailed  # noqa: E402


class AssetsBuildHook(BuildHookInterface[Any]):
    """Puts templates, static files, migrations and guest sources into `app/bundle/` of a wheel."""

    def dependencies(self) -> list[str]:
        """Bring npm into the isolated build environment of a machine that has none."""
        if is_up_to_date(ROOT) or find_npm() is not None:
            return []
        pin = (ROOT / "requirements-npm.txt").read_text(encoding="utf-8").splitlines()
        return [line.split()[0] for line in pin if "==" in line]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is missing.

        Raises:
            RuntimeError: The assets can't be fetched; a wheel without them would not work.
        """
        del version
        try:
            self.app.display_info(f"Browser assets: {set_up_assets(ROOT, Path(sys.executable))}")
        except SetupFailed as exc:
            raise RuntimeError(f"{exc.message}\n{exc.advice}") from exc
        build_data["force_include"].update(
            (str(path), f"app/bundle/{path.relative_to(ROOT).as_posix()}") for path in _carried()
        )


def _carried() -> Iterator[Path]:
    """Files that are no code; app/resources.py finds them in app/bundle/."""
    for name in CARRIED:
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file() and not LEFT_OUT & set(path.relative_to(ROOT).parts):
                yield path
