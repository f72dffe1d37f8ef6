"""A configuration in the agent's terms."""

import pytest

from app.core.errors import InvalidArgument
from app.core.units import MIB
from app.domain.container_config import ContainerConfig, plan_process
from app.domain.container_options import CpuTuning, DeviceMapping, Ulimit
from app.domain.image import ImageConfig
from app.domain.sizing import VmSize
from app.guest.agent_types import NO_LIMIT, RLIMIT_INFINITY, ContainerSpec, Rlimit, Tmpfs
from app.guest.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES, capability_mask
from app.services.guest_spec import (
    MASKED_PATHS,
    READ_ONLY_PATHS,
    changed_limits,
    describe_container,
    seccomp_program,
)

SIZE = VmSize(memory_bytes=1 << 30, vcpus=1, container_limit_bytes=900 * MIB, cpu_quota=None)


def spec_of(size: VmSize = SIZE, **options: object) -> ContainerSpec:
    config = ContainerConfig(image="i", command=("x",), **options)  # type: ignore[arg-type]
    return describe_container(
        config,
        plan_process(config, ImageConfig(), hostname="box"),
        container_id="c",
        hostname="box",
        layer_count=1,
        spill_bytes=0,
        size=size,
        output_stream=1,
        stdin_stream=2,
    )


def file_of(spec: ContainerSpec, path: str) -> str:
    return next(file.data.decode() for file in spec.files if file.path == path)


def test_the_usual_container() -> None:
    spec = spec_of()
    assert spec.process.capabilities == capability_mask(DEFAULT_CAPABILITIES)
    assert spec.seccomp
    assert (spec.masked_paths, spec.read_only_paths) == (MASKED_PATHS, READ_ONLY_PATHS)
    assert not spec.privileged
    assert spec.limits.memory_max_bytes == 900 * MIB
    assert (spec.limits.cpu_quota_us, spec.limits.pids_max) == (None, None)


def test_a_privileged_one() -> None:
    spec = spec_of(privileged=True, cap_drop=("ALL",))
    assert spec.process.capabilities == capability_mask(ALL_CAPABILITIES)
    assert (spec.seccomp, spec.masked_paths, spec.read_only_paths) == (b"", (), ())
    assert spec.privileged
    assert spec_of(privileged=True, seccomp='{"defaultAction": "SCMP_ACT_ALLOW"}').seccomp


@pytest.mark.parametrize("profile", ["{", '{"defaultAction": "odd"}', "[]"])
def test_a_profile_that_is_none(profile: str) -> None:
    with pytest.raises(InvalidArgument):
        seccomp_program(ContainerConfig(image="i", seccomp=profile))


def test_limits_of_many_kinds() -> None:
    spec = spec_of(
        VmSize(1 << 30, 1, MIB, cpu_quota=0.25),
        cpu_tuning=CpuTuning(shares=1024, period_us=50_000),
        ulimits=(Ulimit("nofile", 10, -1),),
        tmpfs={"/run": "size=1m", "/tmp": ""},
        devices=(DeviceMapping("/dev/a", "/dev/b", "r"),),
    )
    assert (spec.limits.cpu_quota_us, spec.limits.cpu_period_us) == (12_500, 50_000)
    assert spec.limits.cpu_weight == 39
    assert spec.process.rlimits == (Rlimit(7, 10, RLIMIT_INFINITY),)
    assert spec.tmpfs == (
        Tmpfs("/run", "noexec,nosuid,nodev,size=1m"),
        Tmpfs("/tmp", "noexec,nosuid,nodev"),
    )
    assert [(each.source, each.target) for each in spec.devices] == [("/dev/a", "/dev/b")]


def test_names_and_resolvers() -> None:
    spec = spec_of(
        extra_hosts=("db:192.0.2.1", "six:2001:db8::1"),
        dns_servers=("192.0.2.53",),
        dns_search=("a", "b"),
        dns_options=("ndots:1",),
    )
    assert file_of(spec, "/etc/hosts").splitlines()[2:] == ["192.0.2.1\tdb", "2001:db8::1\tsix"]
    assert file_of(spec, "/etc/resolv.conf") == (
        "nameserver 192.0.2.53\nsearch a b\noptions ndots:1\n"
    )


def test_what_is_no_longer_limited_is_lifted() -> None:
    limits = changed_limits(ContainerConfig(image="i"), SIZE)
    assert (limits.cpu_quota_us, limits.pids_max) == (NO_LIMIT, NO_LIMIT)
    limits = changed_limits(ContainerConfig(image="i", pids_limit=5), SIZE)
    assert limits.pids_max == 5
