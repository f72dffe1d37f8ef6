from dataclasses import replace

import pytest

from app.core.errors import AlreadyInState, Conflict, InvalidFields
from app.core.units import MIB
from app.domain import container as rules
from app.domain.container import Container, ContainerConfig, ContainerState
from app.domain.container_checks import check_config, check_name
from app.domain.container_config import plan_process
from app.domain.container_options import CpuTuning, DeviceMapping, Ulimit
from app.domain.image import Healthcheck, ImageConfig
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.domain.vm import BootStage


def make_container(
    state: ContainerState = ContainerState.CREATED, config: ContainerConfig | None = None
) -> Container:
    return Container(
        id="a" * 64,
        name="brisk_ketch",
        image_id="sha256:" + "b" * 64,
        config=config or ContainerConfig(image="busybox"),
        created_at_ns=1,
        state=state,
    )


def test_life_from_created_to_exited() -> None:
    starting = rules.begin_start(make_container())
    stages = (BootStage("kernel", 900.0),)
    running = rules.started(starting, pid=7, at_ns=10, boot_stages=stages)
    stopping = rules.begin_stop(running)
    exited = rules.ended(stopping, exit_code=143, at_ns=20)
    states = [c.state.value for c in (starting, running, stopping, exited)]
    assert states == ["starting", "running", "stopping", "exited"]
    assert (exited.exit_code, exited.pid, exited.vm_id) == (143, None, None)
    assert exited.stopped_by_user
    assert running.boot_stages == stages


@pytest.mark.parametrize("state", [ContainerState.RUNNING, ContainerState.STARTING])
def test_start_of_a_running_one_changes_nothing(state: ContainerState) -> None:
    with pytest.raises(AlreadyInState):
        rules.begin_start(make_container(state))


@pytest.mark.parametrize(
    "state", [ContainerState.PAUSED, ContainerState.STOPPING, ContainerState.REMOVING]
)
def test_start_is_refused_in_between(state: ContainerState) -> None:
    with pytest.raises(Conflict):
        rules.begin_start(make_container(state))


def test_start_by_policy_goes_on_counting() -> None:
    waiting = replace(make_container(ContainerState.RESTARTING), restart_count=3)
    assert rules.begin_start(waiting, by_policy=True).restart_count == 3
    with pytest.raises(AlreadyInState):
        rules.begin_start(waiting)


def test_failed_first_start_leaves_it_created() -> None:
    failed = rules.start_failed(
        rules.begin_start(make_container()), exit_code=127, error="not found", at_ns=5
    )
    assert (failed.state, failed.exit_code, failed.error) == ("created", 127, "not found")


def test_start_forgets_the_last_failure() -> None:
    failed = rules.ended(
        make_container(ContainerState.RUNNING), exit_code=137, at_ns=1, oom_killed=True, error="x"
    )
    again = rules.begin_start(failed)
    assert (again.error, again.oom_killed, again.finished_at_ns) == ("", False, None)


def test_stop_of_a_stopped_one_changes_nothing() -> None:
    with pytest.raises(AlreadyInState):
        rules.begin_stop(make_container(ContainerState.EXITED))


def test_stop_ends_the_wait_for_a_restart() -> None:
    stopping = rules.begin_stop(make_container(ContainerState.RESTARTING))
    assert stopping.stopped_by_user


def test_remove_of_a_running_one_says_to_stop_it() -> None:
    with pytest.raises(Conflict, match="stop the container before"):
        rules.begin_remove(make_container(ContainerState.RUNNING))
    removing = rules.begin_remove(make_container(ContainerState.EXITED))
    assert removing.state is ContainerState.REMOVING


def test_ended_counts_restarts_by_policy() -> None:
    restarting = rules.ended(
        make_container(ContainerState.RUNNING), exit_code=1, at_ns=1, restarting=True
    )
    assert (restarting.state, restarting.restart_count) == (ContainerState.RESTARTING, 1)


IMAGE = ImageConfig(
    entrypoint=("/entry",), cmd=("serve",), env=("PATH=/x", "A=1"), user="www", working_dir="/srv"
)


@pytest.mark.parametrize(
    ("config", "args"),
    [
        (ContainerConfig(image="i"), ("/entry", "serve")),
        (ContainerConfig(image="i", command=("x", "y")), ("/entry", "x", "y")),
        (ContainerConfig(image="i", entrypoint=("/mine",)), ("/mine",)),
        (ContainerConfig(image="i", entrypoint=(), command=("x",)), ("x",)),
    ],
    ids=["image", "command", "entrypoint drops the image's command", "entrypoint emptied"],
)
def test_plan_process_merges_as_docker(config: ContainerConfig, args: tuple[str, ...]) -> None:
    assert plan_process(config, IMAGE, hostname="h").args == args


def test_plan_process_merges_the_environment() -> None:
    config = ContainerConfig(image="i", env=("A=2", "B=3", "PATH"), tty=True)
    plan = plan_process(config, IMAGE, hostname="h")
    assert dict(entry.split("=", 1) for entry in plan.env) == {
        "HOSTNAME": "h",
        "TERM": "xterm",
        "A": "2",
        "B": "3",
    }
    assert (plan.user, plan.working_dir, plan.stop_signal) == ("www", "/srv", 15)


def test_plan_process_needs_a_command() -> None:
    with pytest.raises(InvalidFields, match="No command"):
        plan_process(ContainerConfig(image="i"), ImageConfig(), hostname="h")


@pytest.mark.parametrize("name", ["a", "-x", "a b", "ä1", "x/y", "x" * 256])
def test_check_name_refuses(name: str) -> None:
    with pytest.raises(InvalidFields):
        check_name(name)


def test_check_name_takes_dockers_slash() -> None:
    assert check_name("/web.1_a-b") == "web.1_a-b"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ContainerConfig(image="i", env=("=x",)), "env"),
        (ContainerConfig(image="i", env=("A=" + "x" * 100_000,)), "env"),
        (ContainerConfig(image="i", command=("a\0b",)), "command"),
        (ContainerConfig(image="i", working_dir="srv"), "working_dir"),
        (ContainerConfig(image="i", hostname="-x"), "hostname"),
        (ContainerConfig(image="i", stop_signal="SIGNOPE"), "stop_signal"),
        (ContainerConfig(image="i", labels={"": "x"}), "labels"),
        (ContainerConfig(image="i", memory_bytes=5 * MIB), "memory_bytes"),
        (ContainerConfig(image="i", cpus=-1), "cpus"),
        (ContainerConfig(image="i", cpus=float("nan")), "cpus"),
        (ContainerConfig(image="i", pids_limit=-1), "pids_limit"),
        (ContainerConfig(image="i", stop_timeout_s=-1), "stop_timeout_s"),
        (
            ContainerConfig(
                image="i", restart_policy=RestartPolicy(RestartPolicyName.ALWAYS), auto_remove=True
            ),
            "auto_remove",
        ),
        (
            ContainerConfig(image="i", restart_policy=RestartPolicy(RestartPolicyName.ALWAYS, 3)),
            "restart_policy",
        ),
        (ContainerConfig(image="i", tmpfs={"run": ""}), "tmpfs"),
        (ContainerConfig(image="i", masked_paths=("proc",)), "masked_paths"),
        (ContainerConfig(image="i", sysctls={"../x": "1"}), "sysctls"),
        (ContainerConfig(image="i", extra_hosts=("a\nb:192.0.2.1",)), "extra_hosts"),
        (ContainerConfig(image="i", extra_hosts=("a:nowhere",)), "extra_hosts"),
        (ContainerConfig(image="i", dns_servers=("a",)), "dns_servers"),
        (ContainerConfig(image="i", dns_search=("a b",)), "dns_search"),
        (ContainerConfig(image="i", shm_bytes=-1), "shm_bytes"),
        (ContainerConfig(image="i", oom_score_adj=2000), "oom_score_adj"),
        (ContainerConfig(image="i", ulimits=(Ulimit("odd", 1, 1),)), "ulimits"),
        (ContainerConfig(image="i", ulimits=(Ulimit("nofile", 2, 1),)), "ulimits"),
        (ContainerConfig(image="i", ulimits=(Ulimit("nofile", -1, 1),)), "ulimits"),
        (ContainerConfig(image="i", devices=(DeviceMapping("/x", "/y"),)), "devices"),
        (ContainerConfig(image="i", devices=(DeviceMapping("/dev/x", "/y", "q"),)), "devices"),
        (ContainerConfig(image="i", memory_swap_bytes=64 * MIB), "memory_swap_bytes"),
        (
            ContainerConfig(image="i", memory_bytes=64 * MIB, memory_swap_bytes=32 * MIB),
            "memory_swap_bytes",
        ),
        (
            ContainerConfig(image="i", memory_bytes=64 * MIB, memory_reservation_bytes=65 * MIB),
            "memory_reservation_bytes",
        ),
        (ContainerConfig(image="i", cpus=1, cpu_tuning=CpuTuning(quota_us=5000)), "cpus"),
        (ContainerConfig(image="i", cpu_tuning=CpuTuning(period_us=10)), "cpu_period_us"),
        (ContainerConfig(image="i", cpu_tuning=CpuTuning(quota_us=10)), "cpu_quota_us"),
        (ContainerConfig(image="i", cpu_tuning=CpuTuning(cpuset_cpus="x")), "cpuset_cpus"),
        (ContainerConfig(image="i", healthcheck=Healthcheck(("ODD",))), "healthcheck"),
        (
            ContainerConfig(image="i", healthcheck=Healthcheck(("NONE",), interval_ns=5)),
            "healthcheck",
        ),
    ],
)
def test_check_config_names_the_field(config: ContainerConfig, field: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        check_config(config)
    assert set(caught.value.faults) == {field}


def test_check_config_reports_all_faults_at_once() -> None:
    with pytest.raises(InvalidFields) as caught:
        check_config(ContainerConfig(image="i", cpus=-1, pids_limit=-1, env=("=",)))
    assert set(caught.value.faults) == {"cpus", "pids_limit", "env"}
