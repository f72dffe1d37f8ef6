"""Domain values as stored JSON."""

import json
from dataclasses import asdict

import pytest

from app.core.errors import CorruptData
from app.db.codec import decode_config, encode_config
from app.domain.container_config import ContainerConfig
from app.domain.container_options import CpuTuning, DeviceMapping, Ulimit
from app.domain.image import Healthcheck
from app.domain.restart import RestartPolicy, RestartPolicyName

FULL = ContainerConfig(
    image="busybox",
    command=("sh", "-c", "true"),
    restart_policy=RestartPolicy(RestartPolicyName.ON_FAILURE, 3),
    healthcheck=Healthcheck(("CMD", "true"), interval_ns=10**9, retries=2),
    cpu_tuning=CpuTuning(shares=512, cpuset_cpus="0-1"),
    ulimits=(Ulimit("nofile", 1024, -1),),
    devices=(DeviceMapping("/dev/fuse", "/dev/fuse"),),
    tmpfs={"/run": "size=1m"},
    masked_paths=(),
    echo={"HostConfig": {"CgroupParent": "x", "ConsoleSize": [0, 0]}},
)


@pytest.mark.parametrize("config", [FULL, ContainerConfig(image="i")], ids=["full", "least"])
def test_config_survives_storage(config: ContainerConfig) -> None:
    assert decode_config(encode_config(config)) == config


def test_config_of_the_first_version_is_lifted() -> None:
    names = (
        "image command entrypoint env user working_dir hostname tty stdin_open labels stop_signal "
        "stop_timeout_s memory_bytes cpus pids_limit restart_policy auto_remove init "
        "read_only_root cap_add cap_drop no_new_privileges"
    ).split()
    stored = {name: value for name, value in asdict(FULL).items() if name in names}

    lifted = decode_config(json.dumps({"version": 1, "config": stored}))

    assert lifted == ContainerConfig(
        image="busybox", command=FULL.command, restart_policy=FULL.restart_policy
    )


@pytest.mark.parametrize("version", [0, 3], ids=["older than any", "newer"])
def test_config_of_another_version_is_refused(version: int) -> None:
    document = json.loads(encode_config(FULL)) | {"version": version}
    with pytest.raises(CorruptData):
        decode_config(json.dumps(document))
