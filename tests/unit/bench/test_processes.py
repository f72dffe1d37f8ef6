import os
from pathlib import Path

import pytest

from bench.processes import cpu_s, host_cpu_s, resident

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


def test_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        resident(7, tmp_path)
