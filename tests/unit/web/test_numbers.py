"""Rows, bars and sentences made of samples, stages and events."""

from dataclasses import replace

import pytest

from app.core.units import GIB, MIB
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.event import Event, EventType
from app.domain.vm import VmRecord, VmState
from app.web.boot import boot_marks, boot_view
from app.web.commands import launch_commands, request_body
from app.web.eventlog import event_mark, event_row, event_text
from app.web.memory import host_split, memory_view
from app.web.rows import NOTHING, container_row, limit_meter, number_patch, spark_path
from app.web.vms import vm_row
from tests.unit.web.fake_services import STAGES
from tests.unit.web.fake_stores import sample

NOW_NS = 1_795_510_800 * 10**9
RUNNING = Container(
    "a" * 64,
    "web",
    "sha256:0",
    ContainerConfig(image="x", memory_bytes=64 * MIB),
    1,
    state=ContainerState.RUNNING,
    started_at_ns=NOW_NS - 65 * 10**9,
    boot_stages=STAGES,
)


def test_row_without_samples_shows_dashes_not_zeros() -> None:
    row = container_row(RUNNING, (), NOW_NS)
    assert (row.numbers.cpu, row.numbers.memory) == (NOTHING, (NOTHING, ""))
    assert row.numbers.uptime == "1 m"


def test_row_of_an_ended_container_ignores_its_last_sample() -> None:
    ended = replace(RUNNING, state=ContainerState.EXITED, finished_at_ns=NOW_NS - 10**9)
    row = container_row(ended, (sample(),), NOW_NS)
    assert (row.numbers.cpu, row.numbers.uptime) == (NOTHING, "1 s ago")


@pytest.mark.parametrize(
    ("used_mib", "css_class"), [(10, "f-app"), (52, "f-warn"), (63, "f-bad"), (900, "f-bad")]
)
def test_meter_warns_before_the_limit(used_mib: int, css_class: str) -> None:
    meter = limit_meter(used_mib * MIB, 64 * MIB)
    assert meter is not None
    assert meter.css_class == css_class
    assert meter.used <= 100


def test_no_limit_no_meter() -> None:
    assert limit_meter(5, 0) is None


def test_spark_stays_inside_its_box() -> None:
    path = spark_path(tuple(sample(cpu) for cpu in (0.0, 350.0, 20.0)))
    numbers = [float(number) for number in path.removeprefix("M").split()]
    assert all(0 <= x <= 72 for x in numbers[::2])
    assert all(0 <= y <= 20 for y in numbers[1::2])
    assert spark_path((sample(),)) == ""


def test_patch_names_the_row() -> None:
    texts, shapes = number_patch("abc", container_row(RUNNING, (sample(),) * 2, NOW_NS).numbers)
    assert set(texts) == {f"{key}-abc" for key in ("cpu", "mem", "memu", "up", "sub")}
    assert set(shapes) == {"spark-abc", "meter-abc"}


def test_memory_parts_fill_the_bar() -> None:
    view = memory_view(sample(app_mib=40), 64 * MIB)
    assert sum(part.size_bytes for part in view.parts) + view.free_bytes == view.total_bytes
    assert view.isolation_bytes == (31 + 58) * MIB
    assert [part.start_bytes for part in view.parts] == [0, 40 * MIB, 52 * MIB, 83 * MIB]


def test_memory_before_the_first_pss_names_no_hypervisor_part() -> None:
    view = memory_view(replace(sample(), host_resident_bytes=None), 0)
    assert view.parts[-1].size_bytes == 0
    assert view.resident_bytes is None


def test_memory_names_the_share_of_the_template() -> None:
    assert memory_view(sample(), 0).template_bytes == 4 * MIB
    assert memory_view(replace(sample(), host_template_bytes=None), 0).template_bytes == 0


def test_overhead_is_what_the_host_holds_beyond_the_guests_use() -> None:
    assert sample().vmm_overhead_bytes == 58 * MIB
    assert replace(sample(), host_resident_bytes=MIB).vmm_overhead_bytes == 0
    assert replace(sample(), host_resident_bytes=None).vmm_overhead_bytes is None


def test_vm_row_tells_apart_what_the_host_pays_for() -> None:
    vm = VmRecord(
        "0a" * 6,
        "a" * 64,
        VmState.READY,
        2,
        GIB,
        "qemu",
        "tcg",
        1,
        NOW_NS,
        host_resident_bytes=141 * MIB,
        host_template_bytes=4 * MIB,
    )
    row = vm_row(vm, "web", sample(app_mib=40), NOW_NS)
    parts = (row.resident, row.used, row.cache, row.kernel, row.overhead, row.template_share)
    assert parts == ("141 MiB", "40 MiB", "12 MiB", "31 MiB", "58 MiB", "4.0 MiB")
    unknown = vm_row(replace(vm, host_resident_bytes=None), "web", None, NOW_NS)
    assert (unknown.resident, unknown.used, unknown.overhead) == ("–", "–", "–")


def test_host_memory_counts_the_rest_as_everything_else() -> None:
    parts = host_split([sample(app_mib=40)], total_bytes=GIB, available_bytes=GIB // 2)
    assert sum(part.size_bytes for part in parts) == GIB // 2


def test_boot_bar_has_each_stage_and_its_sum() -> None:
    view = boot_view(RUNNING)
    assert view is not None
    assert view.total_ms == pytest.approx(1676.0)
    assert [stage.css_class for stage in view.stages] == ["f-kern", "f-vmm", "f-kern", "f-app"]


def test_boot_marks_end_when_the_process_ran() -> None:
    marks = boot_marks(RUNNING)
    assert marks[-1].time_ns == RUNNING.started_at_ns
    assert marks[0].text == "kernel: 1.21 s"


def test_container_that_never_ran_has_no_boot() -> None:
    assert boot_view(replace(RUNNING, started_at_ns=None)) is None
    assert boot_marks(replace(RUNNING, boot_stages=())) == []


def event(action: str, **facts: str) -> Event:
    return Event(EventType.CONTAINER, action, "a" * 64, "web", NOW_NS, "admin", facts, 7)


@pytest.mark.parametrize(
    ("action", "facts", "text"),
    [
        ("start", {"boot_ms": "1676"}, "running: PID 1 after 1676 ms"),
        (
            "start",
            {"boot_ms": "412", "path": "clone"},
            "running: PID 1 after 412 ms, by a clone",
        ),
        (
            "start",
            {"boot_ms": "38", "path": "pool"},
            "running: PID 1 after 38 ms, from the pool",
        ),
        (
            "template-failed",
            {"error": "no room", "vcpus": "2", "state": "building"},
            "template failed: no room",
        ),
        ("die", {"exitCode": "1"}, "exited 1"),
        ("die", {"exitCode": "137", "oomKilled": "true"}, "exited 137, out of memory"),
        ("kill", {"signal": "SIGHUP"}, "signal sent: signal HUP"),
        ("rename", {"oldName": "old"}, "renamed: old"),
        ("something_new", {}, "something new"),
    ],
)
def test_event_is_a_sentence(action: str, facts: dict[str, str], text: str) -> None:
    assert event_text(event(action, **facts)) == text


def test_event_of_a_removed_container_is_no_link() -> None:
    assert event_row(event("destroy")).href == ""
    assert event_row(event("start")).href == "/containers/aaaaaaaaaaaa"


def test_event_as_mark_names_who_asked() -> None:
    assert event_mark(event("pause")).text == "Paused by admin"


def test_long_attribute_is_cut() -> None:
    assert len(event_text(event("die", exitCode="1", error="x" * 5000))) < 300


def test_command_has_only_what_differs_from_the_default() -> None:
    config = ContainerConfig(image="x", command=("sh", "-c", "echo 'a'"), memory_bytes=64 * MIB)
    assert request_body(config, "web") == {
        "image": "x",
        "name": "web",
        "command": ["sh", "-c", "echo 'a'"],
        "memory_bytes": 64 * MIB,
    }


def test_python_command_is_python() -> None:
    config = ContainerConfig(image="x", command=("echo", 'it\'s "so"'), tty=True)
    curl, python = launch_commands(config, None)
    compile(python.text, "command", "exec")
    assert curl.text.startswith("curl ")
