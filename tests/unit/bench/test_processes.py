import os
import subprocess
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from bench.processes import (
    Resident,
    children,
    command_name,
    cpu_clock_ms,
    cpu_s,
    host_cpu_s,
    resident,
)

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def test_memory_is_read_from_the_rollup(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/smaps_rollup").write_text(
        "5581-7ffe ---p 00000000 00:00 0    [rollup]\n"
        "Rss:                2048 kB\n"
        "Pss:                1024 kB\n"
        "Pss_Shmem:           100 kB\n"
    )
    memory = resident(7, tmp_path)
    assert (memory.rss_bytes, memory.pss_bytes) == (2 * 1024 * 1024, 1024 * 1024)


def test_cpu_time_of_a_process_whose_name_has_spaces_and_parentheses(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(
        f"7 (a ) (b) S 1 7 7 0 -1 4194560 1 2 3 4 {2 * TICKS_PER_S} {TICKS_PER_S} 9 9 20 0 1 0\n"
    )
    assert cpu_s(7, tmp_path) == 3.0


def test_host_time_is_neither_idle_nor_a_guests_twice(tmp_path: Path) -> None:
    fields = [TICKS_PER_S * seconds for seconds in (1, 2, 3, 1000, 1000, 4, 5, 6, 1, 2)]
    (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, fields))}\ncpu0 1 2 3\n")
    assert host_cpu_s(tmp_path) == 21.0


def test_own_process_can_be_read() -> None:
    memory = resident(os.getpid())
    assert 0 < memory.pss_bytes <= memory.rss_bytes
    assert cpu_s(os.getpid()) > 0


def test_the_cpu_clock_counts_what_the_process_does() -> None:
    before_ms, own_before_ns = cpu_clock_ms(os.getpid()), time.process_time_ns()
    while time.process_time_ns() - own_before_ns < 3_000_000:
        pass
    spent_ms = cpu_clock_ms(os.getpid()) - before_ms
    own_ms = (time.process_time_ns() - own_before_ns) / 1e6
    assert 3 <= spent_ms <= own_ms + 3


def test_children_are_found_by_name() -> None:
    with subprocess.Popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"1")
        assert process.stdout.read(1) == b"1"  # from then on it is cat
        assert process.pid in children(os.getpid())
        assert command_name(process.pid) == "cat"


def test_memory_in_a_line_of_results() -> None:
    assert Resident(3_000_000, 1_250_000).as_mb() == {"rss_mb": 3.0, "pss_mb": 1.2}


def test_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        resident(7, tmp_path)
