import sys
from pathlib import Path

import pytest

from app.setup import checks
from app.setup.checks import Check, Tally, main, read_report, run_all

REPORT = """<testsuites><testsuite>
<testcase name="good"/>
<testcase name="bad"><failure message="x"/></testcase>
<testcase name="broken"><error message="x"/></testcase>
<testcase name="absent"><skipped type="pytest.skip" message="no qemu"/></testcase>
<testcase name="no kvm"><skipped type="pytest.skip" message="hardware: no KVM"/></testcase>
<testcase name="known"><skipped type="pytest.xfail" message="later"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    return path


def test_report_is_counted(report: Path) -> None:
    tally = Tally()
    assert read_report(report, tally, in_ci=False) == []
    assert tally == Tally(passed=2, failed=2, skipped=2)


def test_missing_part_fails_in_ci_only_for_what_is_no_hardware(report: Path) -> None:
    assert read_report(report, Tally(), in_ci=True) == ["skipped in CI: absent: no qemu"]


@pytest.mark.parametrize("content", [None, "", "<testsuites/>"])
def test_run_without_a_report_or_a_test_is_wrong(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "report.xml"
    if content is not None:
        path.write_text(content)
    assert read_report(path, Tally(), in_ci=False) != []


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def python(name: str, code: str) -> Check:
    return Check(name, [sys.executable, "-c", code])


def test_run_goes_on_after_a_failure_and_names_it(temporary: Path) -> None:
    mark = temporary.parent / "mark"
    _, wrong = run_all(
        [
            python("first", "raise SystemExit(3)"),
            Check("second", ["no-such-tool"]),
            python("third", f"open({str(mark)!r}, 'w')"),
        ],
        temporary,
        in_ci=False,
    )
    assert wrong == ["first: exit code 3", "second: no-such-tool is not installed"]
    assert mark.exists()


def test_what_a_check_leaves_behind_is_a_failure(temporary: Path) -> None:
    code = "import os; open(os.environ['TMPDIR'] + '/left', 'w')"
    _, wrong = run_all([python("careless", code)], temporary, in_ci=False)
    assert wrong == [f"left behind: file: {temporary}/left"]


def test_check_without_end_is_a_failure(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECK_TIMEOUT_S", 0.2)
    _, wrong = run_all([python("endless", "import time; time.sleep(99)")], temporary, in_ci=False)
    assert wrong == ["endless: no end after 0.2 s"]


def test_quick_run_leaves_out_virtual_machines_and_the_browser() -> None:
    left_out = [check.name for check in checks.checks() if not check.is_quick]
    assert left_out == ["pytest qemu", "pytest e2e"]


def test_wrong_arguments_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slow"]) == 2
    assert "Usage: ./test [quick]" in capsys.readouterr().err
