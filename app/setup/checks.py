"""The test run behind ./test: every check, one summary, and nothing left behind.

`./test` runs all. `./test quick` leaves out what boots virtual machines or opens a browser.
"""

import os
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.setup.leftovers import become_reaper, count, end_descendants, run_reaping
from app.setup.steps import say

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "test-output"
CHECK_TIMEOUT_S = 1500
# A test may be skipped in CI for a reason that begins so: what no set-up can bring to a machine.
ALLOWED_SKIPS = ("hardware: ", "this machine ")


@dataclass(frozen=True)
class Check:
    """One program of the run.

    Attributes:
        report: JUnit file that pytest writes, or None for a program that is no pytest.
        is_quick: Whether `./test quick` runs it.
    """

    name: str
    argv: Sequence[str]
    report: Path | None = None
    is_quick: bool = True


@dataclass
class Tally:
    """Counts over all pytest runs."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


def _pytest(name: str, marks: str, *more: str, is_quick: bool = True) -> Check:
    report = OUTPUT / f"{name}.xml"
    argv = [
        *(sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junit-xml={report}"),
        *("-o", "junit_family=xunit2", *more),
    ]
    return Check(f"pytest {name}", argv, report, is_quick)


def checks() -> list[Check]:
    """All checks, the cheapest first."""
    tools = Path(sys.executable).parent
    return [
        Check("ruff check", [str(tools / "ruff"), "check", "."]),
        Check("ruff format", [str(tools / "ruff"), "format", "--check", "."]),
        Check("mypy", [str(tools / "mypy")]),
        Check("import contracts", [str(tools / "lint-imports")]),
        Check("agent", ["make", "-C", "guest/agent", "check"]),
        _pytest("fast", "not qemu and not e2e", "-n", "2", "--dist=loadfile"),
        _pytest("qemu", "qemu and not e2e", "-n", "2", "--dist=loadfile", is_quick=False),
        _pytest("e2e", "e2e", is_quick=False),
    ]


def read_report(report: Path, tally: Tally, *, in_ci: bool) -> list[str]:
    """Add one pytest run to the tally; returns what is wrong beyond failed tests.

    A run without any test is wrong, and so is, in CI, a test that was skipped because a part is
    missing: there every part must be present.
    """
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314  (pytest's own)
    except (OSError, ElementTree.ParseError) as exc:
        return [f"no report: {exc}"]
    wrong = []
    total = 0
    for case in cases:
        total += 1
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
        elif skip is not None and skip.get("type") != "pytest.xfail":
            tally.skipped += 1
            reason = skip.get("message", "")
            if in_ci and not reason.startswith(ALLOWED_SKIPS):
                wrong.append(f"skipped in CI: {case.get('name')}: {reason}")
        else:
            tally.passed += 1
    return wrong or ([] if total else ["it ran no test"])


def run_check(check: Check, env: dict[str, str], tally: Tally, *, in_ci: bool) -> list[str]:
    """Run one check with its output shown; returns what is wrong, empty when all is well."""
    say(f"\n== {check.name}")
    started_at = time.monotonic()
    if check.report is not None:
        check.report.unlink(missing_ok=True)
    wrong = []
    try:
        code = run_reaping(check.argv, cwd=ROOT, env=env, timeout_s=CHECK_TIMEOUT_S)
        if code is None:
            wrong.append(f"no end after {CHECK_TIMEOUT_S} s")
        elif code != 0:
            wrong.append(f"exit code {code}")
    except FileNotFoundError:
        wrong.append(f"{check.argv[0]} is not installed")
    if check.report is not None:
        wrong += read_report(check.report, tally, in_ci=in_ci)
    say(f"== {check.name}: {'FAILED' if wrong else 'ok'} ({time.monotonic() - started_at:.1f} s)")
    return [f"{check.name}: {text}" for text in wrong]


def run_all(selected: list[Check], temporary: Path, *, in_ci: bool) -> tuple[Tally, list[str]]:
    """Run the checks one after the other, all of them whatever fails."""
    tally = Tally()
    env = {
        "SLIPWAY_TEST_GUEST_CACHE": str(OUTPUT / "guest-cache"),  # built once for all tests
        **os.environ,
        "TMPDIR": str(temporary),
    }
    before = count(ROOT, temporary)
    wrong: list[str] = []
    for check in selected:
        wrong += run_check(check, env, tally, in_ci=in_ci)
        for directory in temporary.glob("pytest-of-*"):  # kept by pytest for a look at failures
            shutil.rmtree(directory, ignore_errors=True)
    after = count(ROOT, temporary)
    say(f"\n== left behind: before {before}; after {after}")
    wrong += [f"left behind: {trace}" for trace in after.since(before)]
    end_descendants()
    return tally, wrong


def main(arguments: list[str]) -> int:
    """Run the checks; 0 if all is well, 1 if not, 2 for arguments that make no sense."""
    if arguments not in ([], ["quick"]):
        sys.stderr.write("Usage: ./test [quick]\n")
        return 2
    is_quick = arguments == ["quick"]
    started_at = time.monotonic()
    become_reaper()
    OUTPUT.mkdir(exist_ok=True)
    selected = [check for check in checks() if check.is_quick or not is_quick]
    # Short, since socket paths under it may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="slw-") as name:
        tally, wrong = run_all(selected, Path(name), in_ci=os.environ.get("CI") == "true")
    say("\n".join(["", *(f"FAILED {text}" for text in wrong)]))
    say(f"{'All is well' if not wrong else 'Not well'} ({time.monotonic() - started_at:.0f} s)")
    say(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
