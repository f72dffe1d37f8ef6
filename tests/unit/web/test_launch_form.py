import pytest

from app.core.units import GIB, MIB
from app.domain.container import Container
from app.domain.container_config import ContainerConfig
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.web.forms import Form
from app.web.launch_form import parse_size_bytes, read_launch_form, values_of


def read(**fields: str) -> tuple[ContainerConfig | None, dict[str, str]]:
    form = read_launch_form(Form([("image", "busybox"), *fields.items()]))
    return form.config, dict(form.faults)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("256m", 256 * MIB),
        ("1g", GIB),
        ("1.5 GiB", 1536 * MIB),
        ("64 MB", 64 * MIB),
        ("7340032", 7 * MIB),
    ],
)
def test_size_is_read_as_docker_does(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["256q", "-1m", "m", "1e9", "²", "99999999t"])
def test_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|host"):
        parse_size_bytes(text)


def test_empty_fields_mean_as_the_image_says() -> None:
    config, faults = read()
    assert not faults
    assert config == ContainerConfig(image="busybox")


def test_every_field_reaches_the_configuration() -> None:
    config, faults = read(
        command="sh -c 'echo $A; sleep 1'",
        entrypoint="/bin/env",
        env="A=1\r\n\r\nB=two words",
        labels="tier=web\nsolo",
        memory="128m",
        cpus="0.5",
        pids_limit="64",
        restart="on-failure",
        retries="3",
        user="1000:1000",
        working_dir="/srv",
        hostname="web",
        stop_signal="SIGINT",
        stop_timeout_s="0",
        cap_add="NET_ADMIN, SYS_TIME",
        tty="on",
        init="on",
    )
    assert not faults
    assert config == ContainerConfig(
        image="busybox",
        command=("sh", "-c", "echo $A; sleep 1"),
        entrypoint=("/bin/env",),
        env=("A=1", "B=two words"),
        labels={"tier": "web", "solo": ""},
        memory_bytes=128 * MIB,
        cpus=0.5,
        pids_limit=64,
        restart_policy=RestartPolicy(RestartPolicyName.ON_FAILURE, 3),
        user="1000:1000",
        working_dir="/srv",
        hostname="web",
        stop_signal="SIGINT",
        stop_timeout_s=0,
        cap_add=("NET_ADMIN", "SYS_TIME"),
        tty=True,
        init=True,
    )


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("command", "sh -c 'open"),
        ("env", "NOVALUE"),
        ("env", "=x"),
        ("labels", "=x"),
        ("memory", "1m"),
        ("memory", "lots"),
        ("cpus", "nan"),
        ("cpus", "inf"),
        ("cpus", "-1"),
        ("cpus", "9999"),
        ("pids_limit", "-1"),
        ("pids_limit", "99999999"),
        ("restart", "sometimes"),
        ("working_dir", "relative"),
        ("name", "-bad"),
        ("name", "x"),
        ("stop_signal", "SIGNOPE"),
        ("stop_timeout_s", "soon"),
        ("hostname", "no_underscore"),
    ],
)
def test_fault_is_said_at_its_field(field: str, text: str) -> None:
    config, faults = read(**{field: text})
    assert config is None
    assert list(faults) == [field]


def test_faults_of_all_fields_come_together() -> None:
    form = read_launch_form(Form([("memory", "x"), ("cpus", "y")]))
    assert set(form.faults) == {"image", "memory", "cpus"}


def test_flags_that_exclude_each_other_are_said() -> None:
    _, faults = read(auto_remove="on", restart="always")
    assert "auto_remove" in faults


def test_form_of_a_container_gives_the_same_container() -> None:
    config, _ = read(
        command="sh -c 'a b'", env="A=1", memory="192m", cpus="1.5", restart="always", tty="on"
    )
    assert config is not None
    container = Container("a" * 64, "web", "sha256:0", config, 1)
    assert read_launch_form(values_of(container)).config == config
