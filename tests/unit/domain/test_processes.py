"""`ps` of a container: what the kernel's lines become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidArgument
from app.domain.processes import GuestProcess, Moment, format_processes, parse_stat

NOW_NS = 1_795_493_105 * 10**9
MOMENT = Moment(NOW_NS, 1 << 30)
LINE = (
    "42 (my prog) S 1 42 42 34816 42 4194560 91 0 0 0 130 20 0 0 20 0 3 0 500 1704960 128 18446744"
)


def process(line: str = LINE, *, user: int = 0) -> GuestProcess:
    return parse_stat(line, user=user, args=("my prog", "-x"), boot_ns=NOW_NS - 60 * 10**9)


def test_parse_stat_reads_the_kernels_line() -> None:
    found = process()
    assert (found.pid, found.parent_pid, found.name, found.state) == (42, 1, "my prog", "S")
    assert (found.cpu_ticks, found.threads, found.virtual_bytes) == (150, 3, 1704960)
    assert found.started_at_ns == NOW_NS - 55 * 10**9


@given(st.text().filter(lambda text: "\n" not in text))
def test_parse_stat_bears_any_name(name: str) -> None:
    assert process(LINE.replace("my prog", name)).parent_pid == 1


@pytest.mark.parametrize(
    ("ps_args", "titles", "row"),
    [
        (
            "",
            "UID PID PPID C STIME TTY TIME CMD",
            ["root", "42", "1", "2", "04:04", "pts/0", "00:00:01", "my prog -x"],
        ),
        (
            "waux",
            "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
            ["root", "42", "2.7", "0.0", "1665", "512", "pts/0", "Ssl", "04:04", "0:01",
             "my prog -x"],
        ),
        ("-e", "PID TTY TIME CMD", ["42", "pts/0", "00:00:01", "my prog"]),
        ("-eo pid,etime,comm", "PID ELAPSED COMMAND", ["42", "00:55", "my prog"]),
        ("-o pid=Number", "Number", ["42"]),
    ],
)  # fmt: skip
def test_formats(ps_args: str, titles: str, row: list[str]) -> None:
    assert format_processes([process()], ps_args, MOMENT) == (titles.split(), [row])


def test_other_users_are_numbers() -> None:
    assert format_processes([process(user=999)], "-o user", MOMENT)[1] == [["999"]]


@pytest.mark.parametrize("ps_args", ["--forest", "-Z", "-o nonsense", "-o"])
def test_what_is_not_understood_is_refused(ps_args: str) -> None:
    with pytest.raises(InvalidArgument):
        format_processes([], ps_args, MOMENT)
