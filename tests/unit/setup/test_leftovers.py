import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_reaper(body: str, directory: Path) -> str:
    """Run code in a process of its own, which becomes the reaper of what it starts."""
    script = textwrap.dedent(
        """
        import subprocess, sys
        from pathlib import Path
        from app.setup.leftovers import become_reaper, count, end_descendants
        directory = Path(sys.argv[1])
        become_reaper()
        before = count(directory, directory)
        """
    ) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_that_leaves_nothing_reports_nothing(tmp_path: Path) -> None:
    body = """
        subprocess.run(["true"])
        print(count(directory, directory).since(before))
    """
    assert run_reaper(body, tmp_path).strip() == "[]"


def test_orphan_in_a_session_of_its_own_is_reported_and_ended(tmp_path: Path) -> None:
    # It has no command line for a moment while it becomes another program.
    body = r"""
        script = (
            "setsid sleep 61.5 & "
            "until [ \"$(tr '\\0' ' ' < /proc/$!/cmdline)\" = 'sleep 61.5 ' ]; do :; done"
        )
        subprocess.run(["sh", "-c", script], timeout=20)
        print(count(directory, directory).since(before))
        end_descendants()
        import os
        os.wait()
        print(count(directory, directory).since(before))
    """
    reported, after = run_reaper(body, tmp_path).splitlines()
    assert "process: " in reported
    assert "61.5" in reported
    assert after == "[]"


def test_listener_of_an_orphan_is_reported_by_its_port(tmp_path: Path) -> None:
    body = """
        import socket
        listener = socket.create_server(("127.0.0.1", 0))
        listener.set_inheritable(True)
        child = subprocess.Popen(["sleep", "61.5"], close_fds=False)
        print(listener.getsockname()[1])
        print(count(directory, directory).since(before))
        end_descendants()
        child.wait()
    """
    port, reported = run_reaper(body, tmp_path).splitlines()
    assert f"socket: tcp port {port}" in reported


def test_file_in_the_temporary_directory_is_reported(tmp_path: Path) -> None:
    body = """
        (directory / "left").write_text("")
        print(count(directory, directory).since(before))
    """
    assert f"file: {tmp_path}/left" in run_reaper(body, tmp_path)


def test_ended_orphan_is_no_leftover(tmp_path: Path) -> None:
    body = """
        import os, time
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        subprocess.run(["sh", "-c", "(sleep 0.2) & exit 0"], close_fds=False)
        os.close(writing)
        os.read(reading, 1)  # ends when the orphan has
        while found := count(directory, directory).since(before):
            time.sleep(0.01)  # between its last close and its end
        print(found)
    """
    assert run_reaper(body, tmp_path).strip() == "[]"


def test_orphans_are_reaped_while_a_program_runs(tmp_path: Path) -> None:
    body = """
        from app.setup.leftovers import run_reaping
        # The orphan's pid must be gone, not a zombie, before its starter's starter has ended.
        script = 'pid=$(sh -c "sleep 0 & echo \\$!"); while kill -0 $pid 2>/dev/null; do :; done'
        argv = ["timeout", "10", "sh", "-c", script]
        print(run_reaping(argv, cwd=directory, env={"PATH": "/usr/bin:/bin"}, timeout_s=20))
    """
    assert run_reaper(body, tmp_path).strip() == "0"


def test_exit_code_of_the_program_is_kept(tmp_path: Path) -> None:
    body = """
        from app.setup.leftovers import run_reaping
        for argv in (["sh", "-c", "exit 7"], ["sleep", "60"]):
            print(run_reaping(argv, cwd=directory, env={"PATH": "/usr/bin:/bin"}, timeout_s=0.5))
    """
    assert run_reaper(body, tmp_path).split() == ["7", "None"]
