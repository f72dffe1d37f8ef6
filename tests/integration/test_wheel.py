"""A wheel made from a clean clone works in a fresh environment."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENDOR = "static/vendor"
COMMAND_TIMEOUT_S = 240

pytestmark = [pytest.mark.timeout(300)]


def run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a clone of the last commit, by the build back end of the test environment."""
    directory = tmp_path_factory.mktemp("wheel")
    clone = directory / "clone"
    run("git", "clone", "--quiet", str(ROOT), str(clone), cwd=directory)
    if (ROOT / VENDOR).is_dir():  # else the build hook fetches the assets
        shutil.copytree(ROOT / VENDOR, clone / VENDOR)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", str(directory), str(clone)),
        cwd=directory,
    )
    return next(directory.glob("slipway-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the pinned requirements and the wheel."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", str(venv), cwd=venv.parent)
    pip = (str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps")
    run(*pip, "--require-hashes", "-r", str(ROOT / "requirements.txt"), cwd=venv.parent)
    run(*pip, str(wheel), cwd=venv.parent)
    return venv


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """An environment without anything of the checkout."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "SLIPWAY_DATA_DIR": str(tmp_path / "data"),
        "SLIPWAY_PORT": str(port),
        "TMPDIR": str(tmp_path),
    }


def test_wheel_brings_everything_that_is_no_code(
    environment: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    script = (
        "from app import resources as r;"
        "assert not r.is_checkout();"
        "print(*[path for path in ("
        "r.templates_dir() / 'base.html', r.static_dir() / 'vendor/htmx.min.js',"
        "r.migrations_dir() / 'env.py', r.guest_dir() / 'slipway.yml',"
        "r.guest_dir() / 'agent/Makefile', r.unit_file()) if not path.is_file()])"
    )
    output = run(environment / "bin/python", "-c", script, cwd=tmp_path, env=settings)
    assert output.strip() == ""


def test_installed_command_tells_its_version(
    environment: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    output = run(environment / "bin/slipway", "--version", cwd=tmp_path, env=settings)
    assert output.startswith("slipway 0.")


def test_installed_doctor_finds_the_assets_and_says_what_is_not_built(
    environment: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    done = subprocess.run(
        [environment / "bin/slipway", "doctor", "--json"],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    findings = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert findings["browser assets"]["verdict"] == "ok"
    assert findings["guest"]["verdict"] == "fault"
    assert done.returncode == 1
    assert not (tmp_path / "data").exists()


def test_installed_unit_names_the_installed_command(
    environment: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    output = run(environment / "bin/slipway", "unit", cwd=tmp_path, env=settings)
    assert f"ExecStart={environment}/bin/slipway serve" in output


@pytest.fixture
def server(
    environment: Path, tmp_path: Path, settings: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """`slipway serve` of the wheel; ended by the test or here."""
    process = subprocess.Popen(
        [environment / "bin/slipway", "serve"],
        cwd=tmp_path,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.qemu
def test_installed_engine_serves_the_dashboard_and_ends_cleanly(
    server: subprocess.Popen[str], settings: dict[str, str]
) -> None:
    lines = []
    assert server.stdout is not None
    for line in server.stdout:
        lines.append(line)
        if "/setup?token=" in line:
            break
    assert "/setup?token=" in "".join(lines[-1:]), "".join(lines)
    url = f"http://127.0.0.1:{settings['SLIPWAY_PORT']}"
    with urllib.request.urlopen(f"{url}/sign-in", timeout=30) as page:
        assert "Slipway" in page.read().decode()
    server.terminate()
    output, _ = server.communicate(timeout=60)
    assert "no container runs" in output
    assert server.returncode == 0
