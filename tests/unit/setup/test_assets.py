import json
from pathlib import Path

import pytest

from app.setup import assets
from app.setup.assets import is_up_to_date, set_up_assets, set_up_test_assets, vendored_files
from app.setup.steps import SetupFailed

NPM = """#!/bin/sh
[ "$1" = --version ] && exit 0
mkdir -p node_modules/p
echo "$0 $@" > node_modules/p/a.js
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one package, and an npm that "installs" it."""
    root = tmp_path / "checkout"
    (root / "static").mkdir(parents=True)
    write_package(root, {"p/a.js": "a.js"})
    (root / "package-lock.json").write_text("{}")
    npm = tmp_path / "npm"
    npm.write_text(NPM)
    npm.chmod(0o755)
    monkeypatch.setattr(assets, "find_npm", lambda: [str(npm)])
    return root


def write_package(root: Path, vendor: dict[str, str]) -> None:
    (root / "package.json").write_text(json.dumps({"slipway": {"vendor": vendor}}))


def test_assets_are_fetched_once(checkout: Path) -> None:
    assert set_up_assets(checkout, Path("/none")) == "1 files"
    assert "npm ci --ignore-scripts" in (checkout / "static/vendor/a.js").read_text()
    assert set_up_assets(checkout, Path("/none")) == "up to date"


def test_test_assets_are_fetched_once_beside_the_package_file(checkout: Path) -> None:
    assert set_up_test_assets(checkout, Path("/none")) == "installed"
    assert "--omit" not in (checkout / "node_modules/p/a.js").read_text()
    assert set_up_test_assets(checkout, Path("/none")) == "up to date"


def test_changed_lock_file_fetches_again_and_drops_old_files(checkout: Path) -> None:
    set_up_assets(checkout, Path("/none"))
    (checkout / "static/vendor/old.js").write_text("")
    (checkout / "package-lock.json").write_text('{"lockfileVersion": 3}')
    assert not is_up_to_date(checkout)
    set_up_assets(checkout, Path("/none"))
    assert not (checkout / "static/vendor/old.js").exists()


def test_removed_asset_is_noticed(checkout: Path) -> None:
    set_up_assets(checkout, Path("/none"))
    (checkout / "static/vendor/a.js").unlink()
    assert not is_up_to_date(checkout)


def test_file_that_the_package_lacks_is_named_and_the_old_assets_stay(checkout: Path) -> None:
    set_up_assets(checkout, Path("/none"))
    write_package(checkout, {"p/b.js": "b.js"})
    with pytest.raises(SetupFailed, match=r"p/b\.js"):
        set_up_assets(checkout, Path("/none"))
    assert (checkout / "static/vendor/a.js").exists()


@pytest.mark.parametrize("vendor", [{"../../x": "a"}, {"p/a.js": "../a.js"}, {"/etc/passwd": "a"}])
def test_path_that_leaves_the_directories_is_refused(
    checkout: Path, vendor: dict[str, str]
) -> None:
    write_package(checkout, vendor)
    with pytest.raises(SetupFailed, match="no path inside"):
        vendored_files(checkout)


def test_repository_locks_every_package_with_its_hash() -> None:
    lock = json.loads((assets_root() / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


def assets_root() -> Path:
    return Path(assets.__file__).resolve().parents[2]
