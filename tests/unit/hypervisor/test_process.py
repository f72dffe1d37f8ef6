import os
import select
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.hypervisor.qemu.identity import Identity
from app.hypervisor.qemu.process import KILL_DEADLINE_S, OOM_SCORE_ADJ, spawn

OURS = Identity(None, None)
UID, GID = 65534, 65533
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def said(arguments: list[str], identity: Identity, groups: list[int]) -> list[str]:
    """What a spawned process printed until its end."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as output:
        process = spawn(
            arguments, identity=identity, groups=groups, descriptors=(), stderr_fd=write_fd
        )
        os.close(write_fd)
        text = output.read()
    select.select([process.pidfd], [], [], KILL_DEADLINE_S)
    assert process.reap().exit_code == 0
    process.close()
    return text.split()


@as_root
@pytest.mark.parametrize("groups", [[], [7, 9]], ids=["no group more", "groups more"])
def test_the_process_has_its_users_rights_alone(groups: list[int]) -> None:
    lines = ["sh", "-c", "grep -E '^(Uid|Gid|Groups):' /proc/self/status; umask; pwd"]
    uids, gids = [str(UID)] * 4, [str(GID)] * 4
    expected = ["Uid:", *uids, "Gid:", *gids, "Groups:", *map(str, groups), "0077", "/"]
    assert said(lines, Identity(UID, GID), groups) == expected


@as_root
def test_the_process_stays_the_one_that_is_watched() -> None:
    assert said(["sh", "-c", "test $$ = $(cut -d' ' -f6 /proc/$$/stat) && echo leader"],
                Identity(UID, GID), []) == ["leader"]  # fmt: skip


def test_without_another_user_it_is_ours() -> None:
    assert said(["id", "-u"], OURS, []) == [str(os.geteuid())]


def test_the_host_may_kill_it_first() -> None:
    read_fd, write_fd = os.pipe()
    process = spawn(["sleep", "60"], identity=OURS, groups=[], descriptors=(), stderr_fd=write_fd)
    try:
        score = Path(f"/proc/{process.pid}/oom_score_adj")
        assert int(score.read_text()) == OOM_SCORE_ADJ
    finally:
        process.kill_and_reap()
        process.close()
        os.close(read_fd)
        os.close(write_fd)


def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(Unavailable, match="could not be started"):
        spawn(["/absent"], identity=OURS, groups=[], descriptors=(), stderr_fd=2)
