"""Build hook: a wheel carries the browser assets, fetched if the checkout has none yet."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from app.setup.assets import find_npm, is_up_to_date, set_up_assets  # noqa: E402  (path set above)
from app.setup.steps import SetupFailed  # noqa: E402


class AssetsBuildHook(BuildHookInterface[Any]):
    """Fills static/vendor/ before the files of a wheel are collected."""

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
        del version, build_data
        try:
            self.app.display_info(f"Browser assets: {set_up_assets(ROOT, Path(sys.executable))}")
        except SetupFailed as exc:
            raise RuntimeError(f"{exc.message}\n{exc.advice}") from exc
