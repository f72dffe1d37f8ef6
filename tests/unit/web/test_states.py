from dataclasses import replace

import pytest

from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.vm import VmRecord, VmState
from app.resources import static_dir
from app.web.states import ABSENT_VM, Group, container_mark, group_of, vm_mark

BASE = Container("a" * 64, "web", "sha256:0", ContainerConfig(image="x"), 1)


@pytest.mark.parametrize("state", list(ContainerState))
def test_every_state_has_shape_word_and_group(state: ContainerState) -> None:
    container = replace(BASE, state=state)
    mark = container_mark(container)
    sprite = (static_dir() / "icons.svg").read_text()
    assert f'id="{mark.icon}"' in sprite
    assert mark.text
    assert group_of(container) in Group


@pytest.mark.parametrize(
    ("fields", "text", "tone"),
    [
        ({"exit_code": 0}, "Exited 0", ""),
        ({"exit_code": 1}, "Exited 1", "bad"),
        ({"exit_code": 137, "stopped_by_user": True}, "Exited 137", ""),
        ({"exit_code": 137, "oom_killed": True}, "OOM, 137", "bad"),
        ({"exit_code": 0, "error": "guest panicked"}, "Exited 0", "bad"),
    ],
)
def test_exit_is_red_only_if_somebody_should_look(
    fields: dict[str, object], text: str, tone: str
) -> None:
    mark = container_mark(replace(BASE, state=ContainerState.EXITED, **fields))  # type: ignore[arg-type]
    assert (mark.text, mark.tone) == (text, tone)


def test_failed_first_start_is_not_just_created() -> None:
    failed = replace(BASE, error="no memory")
    assert container_mark(failed).tone == "bad"
    assert group_of(failed) is Group.FAILED


@pytest.mark.parametrize("state", list(VmState))
def test_every_vm_state_is_a_square(state: VmState) -> None:
    vm = VmRecord("v", "c", state, 1, 1, "qemu", "tcg", None, 1)
    mark = vm_mark(vm)
    assert mark.is_vm
    assert f'id="{mark.icon}"' in (static_dir() / "icons.svg").read_text()


def test_no_vm_is_off() -> None:
    assert vm_mark(None) == ABSENT_VM
