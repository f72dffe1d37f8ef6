"""What the documentation says about names in the code is checked against the code."""

import argparse
import re
from pathlib import Path

import pytest

from app.cli import build_parser
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def documented_settings() -> dict[str, str]:
    """Variable -> default column of docs/settings.md."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(SLIPWAY_\w+)` \| (.+?) \|", text, re.MULTILINE))


def test_every_setting_is_documented_and_no_other() -> None:
    fields = {f"SLIPWAY_{name.upper()}" for name in Settings.model_fields}
    assert set(documented_settings()) == fields


def test_documented_defaults_are_the_real_ones() -> None:
    defaults = documented_settings()
    for name, field in Settings.model_fields.items():
        if name == "data_dir":
            continue  # depends on the home directory
        shown = defaults[f"SLIPWAY_{name.upper()}"].split()[0].strip("`")
        real = field.get_default()
        expected = "empty" if real == "" else f"{real:g}" if isinstance(real, float) else str(real)
        assert shown == expected, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_reading_order() -> None:
    reachable = set()
    for index in (ROOT / "docs/README.md", ROOT / "docs/decisions/README.md"):
        for target in LINK.findall(index.read_text(encoding="utf-8")):
            if "://" not in target:
                reachable.add((index.parent / target).resolve())
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert pages - reachable == {ROOT / "docs/README.md"}


def command_names(parser: argparse.ArgumentParser, before: str = "") -> list[str]:
    """Every command with its actions, such as "user add"."""
    names = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                names += command_names(below, f"{before}{name} ") or [f"{before}{name}"]
    return names


@pytest.mark.parametrize("command", command_names(build_parser()))
def test_every_command_is_documented(command: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"(slipway|\./run) {command}\b", text)
