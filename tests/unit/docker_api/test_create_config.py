"""From Docker's body of a create to our configuration, and what is refused on the way."""

from typing import Any

import pytest

from app.core.errors import InvalidArgument, SlipwayError, Unsupported
from app.docker_api.create_body import CreateBody
from app.docker_api.create_config import container_config, warnings_for
from app.docker_api.host_config import host_config_view
from app.domain.container_config import ContainerConfig
from app.domain.container_options import CpuTuning, DeviceMapping, Ulimit
from app.domain.image import Healthcheck
from app.domain.restart import RestartPolicy, RestartPolicyName


def config_of(host: dict[str, Any] | None = None, **top: Any) -> ContainerConfig:
    return container_config(
        CreateBody.model_validate({"Image": "busybox", "HostConfig": host or {}, **top})
    )


@pytest.mark.parametrize(
    ("top", "field", "value"),
    [
        ({"Cmd": "echo hi"}, "command", ("echo hi",)),
        ({"Cmd": ["echo", "hi"]}, "command", ("echo", "hi")),
        ({"Cmd": []}, "command", None),
        ({"cmd": ["x"]}, "command", ("x",)),
        ({"Entrypoint": [""]}, "entrypoint", ()),
        ({"Entrypoint": "sh"}, "entrypoint", ("sh",)),
        ({"Entrypoint": None}, "entrypoint", None),
        ({"ExposedPorts": {"80": {}, "53/udp": {}}}, "exposed_ports", ("80/tcp", "53/udp")),
        ({"StopTimeout": 7}, "stop_timeout_s", 7),
        (
            {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 5, "Retries": 2}},
            "healthcheck",
            Healthcheck(("CMD", "true"), interval_ns=5, retries=2),
        ),
        ({"NetworkDisabled": True}, "network_mode", "none"),
    ],
    ids=str,
)
def test_fields_of_the_container(top: dict[str, Any], field: str, value: object) -> None:
    assert getattr(config_of(**top), field) == value


@pytest.mark.parametrize(
    ("host", "field", "value"),
    [
        ({"NanoCpus": 1_500_000_000}, "cpus", 1.5),
        ({"CpuShares": 512}, "cpu_tuning", CpuTuning(shares=512)),
        ({"PidsLimit": -1}, "pids_limit", 0),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
            "restart_policy",
            RestartPolicy(RestartPolicyName.ON_FAILURE, 3),
        ),
        ({"RestartPolicy": {"Name": ""}}, "restart_policy", RestartPolicy()),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}]},
            "ulimits",
            (Ulimit("nofile", 1, -1),),
        ),
        (
            {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "", "CgroupPermissions": ""}]},
            "devices",
            (DeviceMapping("/dev/a", "/dev/a", "rwm"),),
        ),
        ({"SecurityOpt": ["no-new-privileges"]}, "no_new_privileges", True),
        ({"SecurityOpt": ["no-new-privileges:false"]}, "no_new_privileges", False),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "seccomp", "unconfined"),
        ({"SecurityOpt": ["seccomp=builtin"]}, "seccomp", ""),
        ({"SecurityOpt": ["apparmor=unconfined"]}, "security_options", ("apparmor=unconfined",)),
        ({"SecurityOpt": ["label=disable"]}, "security_options", ("label=disable",)),
        ({"MaskedPaths": []}, "masked_paths", ()),
        ({"NetworkMode": "default"}, "network_mode", "bridge"),
        ({"NetworkMode": "none"}, "network_mode", "none"),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096}}]},
            "tmpfs",
            {"/t": "size=4096"},
        ),
        ({"GroupAdd": ["audio", 5]}, "groups", ("audio", "5")),
        ({"LogConfig": {"Type": "none"}}, "log_driver", "none"),
    ],
    ids=str,
)
def test_fields_of_the_host(host: dict[str, Any], field: str, value: object) -> None:
    assert getattr(config_of(host), field) == value


@pytest.mark.parametrize(
    ("host", "kind", "text"),
    [
        ({"Binds": ["/a:/b"]}, Unsupported, "volume or bind /a:/b refused"),
        ({"Mounts": [{"Type": "bind", "Target": "/b"}]}, Unsupported, "mount of type bind"),
        ({"VolumesFrom": ["x"]}, Unsupported, "volumes of x"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, Unsupported, "publishing port 80/tcp"),
        ({"Links": ["a:b"]}, Unsupported, "link a:b"),
        ({"ExtraHosts": ["h:host-gateway"]}, Unsupported, "extra host h:host-gateway"),
        ({"NetworkMode": "host"}, Unsupported, "can't share namespaces"),
        ({"NetworkMode": "container:x"}, Unsupported, "can't share namespaces"),
        ({"NetworkMode": "mine"}, Unsupported, "network mine not found"),
        ({"PidMode": "host"}, Unsupported, "PID namespace mode host refused"),
        ({"IpcMode": "container:x"}, Unsupported, "IPC namespace"),
        ({"UTSMode": "host"}, Unsupported, "UTS namespace"),
        ({"CgroupnsMode": "host"}, Unsupported, "cgroup namespace"),
        ({"DeviceRequests": [{"Count": -1}]}, Unsupported, "no GPU"),
        ({"DeviceCgroupRules": ["c 1:3 r"]}, Unsupported, "device cgroup rules"),
        ({"StorageOpt": {"size": "1G"}}, Unsupported, "--storage-opt"),
        ({"CpuRealtimePeriod": 1}, Unsupported, "real-time"),
        ({"SecurityOpt": ["apparmor=mine"]}, Unsupported, "AppArmor profile mine"),
        ({"SecurityOpt": ["odd"]}, InvalidArgument, "invalid --security-opt"),
        ({"Runtime": "kata"}, InvalidArgument, "unknown or invalid runtime name: kata"),
        ({"LogConfig": {"Type": "syslog"}}, InvalidArgument, "no log driver named 'syslog'"),
        ({"LogConfig": {"Config": {"odd": "1"}}}, InvalidArgument, "unknown log opt 'odd'"),
        ({"RestartPolicy": {"Name": "odd"}}, InvalidArgument, "unknown policy 'odd'"),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}},
            InvalidArgument,
            "can only be used with 'on-failure'",
        ),
        ({"Mounts": [{"Type": "tmpfs", "Target": "t"}]}, InvalidArgument, "must be absolute"),
    ],
    ids=str,
)
def test_what_can_not_be_had_is_refused(
    host: dict[str, Any], kind: type[SlipwayError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        config_of(host)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"OomKillDisable": True}, "OomKillDisable discarded"),
        ({"MemorySwappiness": 10}, "swappiness"),
        ({"BlkioWeight": 10}, "Weight discarded"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 1}]}, "read limit"),
        ({"NetworkMode": "bridge"}, "no network card"),
    ],
    ids=str,
)
def test_what_is_dropped_is_warned_of(host: dict[str, Any], text: str) -> None:
    body = CreateBody.model_validate({"Image": "i", "HostConfig": {"NetworkMode": "none"} | host})
    warnings = warnings_for(body)
    assert len(warnings) == 1
    assert text in warnings[0]


def test_what_was_given_is_shown_again() -> None:
    host = {
        "CgroupParent": "mine",
        "ConsoleSize": [30, 100],
        "Init": True,
        "Annotations": {"a": "b"},
        "Tmpfs": {"/run": ""},
        "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        "Memory": 64 << 20,
        "IpcMode": "shareable",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    }
    view = host_config_view(config_of(host))
    assert {name: view[name] for name in host} == host
    assert view["MemorySwap"] == 128 << 20
