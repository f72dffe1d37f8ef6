"""Image configurations and what the store says about images."""

from typing import Any

import pytest

from app.core.errors import CorruptData
from app.domain.image import Healthcheck, Image, ImageConfig, ImageNotFound
from app.domain.reference import Reference

FULL: dict[str, Any] = {
    "User": "web:www",
    "ExposedPorts": {"443/tcp": {}, "80/tcp": {}},
    "Env": ["PATH=/bin", "A=b=c"],
    "Entrypoint": ["/entry", "--x"],
    "Cmd": ["run"],
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "Labels": {"a": "1", "b": ""},
    "StopSignal": "SIGQUIT",
    "Shell": ["/bin/bash", "-c"],
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
}


def make_image(**more: Any) -> Image:
    values: dict[str, Any] = {
        "id": "sha256:" + "ab" * 32,
        "references": (),
        "config": ImageConfig(),
        "created": None,
        "architecture": "amd64",
        "os": "linux",
        "diff_ids": ("sha256:" + "1" * 64,),
        "size_bytes": 1,
        "manifest_digest": "sha256:" + "2" * 64,
    }
    return Image(**{**values, **more})


def test_config_reads_every_field() -> None:
    config = ImageConfig.from_json(FULL)
    assert config == ImageConfig(
        entrypoint=("/entry", "--x"),
        cmd=("run",),
        env=("PATH=/bin", "A=b=c"),
        user="web:www",
        working_dir="/srv",
        exposed_ports=("443/tcp", "80/tcp"),
        volumes=("/data",),
        labels={"a": "1", "b": ""},
        stop_signal="SIGQUIT",
        shell=("/bin/bash", "-c"),
        healthcheck=Healthcheck(("CMD", "true"), interval_ns=30_000_000_000, retries=3),
    )


def test_config_round_trip() -> None:
    assert ImageConfig.from_json(FULL).to_json() == FULL


@pytest.mark.parametrize("value", [None, {}, dict.fromkeys(FULL)])
def test_config_missing_means_default(value: object) -> None:
    config = ImageConfig.from_json(value)
    assert config == ImageConfig()
    assert config.to_json() == {}


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        {"Env": "PATH=/bin"},
        {"Env": [1]},
        {"Cmd": {"a": 1}},
        {"User": 0},
        {"Labels": {"a": 1}},
        {"Labels": ["a"]},
        {"ExposedPorts": ["80"]},
        {"Volumes": "x"},
        {"Healthcheck": "x"},
        {"Healthcheck": {"Interval": -1}},
        {"Healthcheck": {"Retries": "3"}},
        {"Healthcheck": {"Interval": 2**63}},
    ],
)
def test_config_wrong_type_is_refused(value: object) -> None:
    with pytest.raises(CorruptData, match="image config"):
        ImageConfig.from_json(value)


@pytest.mark.parametrize(
    "value", [{"Env": ["A=\0"]}, {"User": "a\0b"}, {"Labels": {"a": "\0"}}, {"Volumes": {"\0": {}}}]
)
def test_config_nul_is_refused(value: object) -> None:
    with pytest.raises(CorruptData, match="NUL"):
        ImageConfig.from_json(value)


def test_image_names() -> None:
    assert make_image().display_name == "<none>"
    named = make_image(references=(Reference.parse("busybox"),))
    assert named.display_name == "busybox:latest"
    assert named.short_id == "abababababab"


def test_image_mounts_a_repeated_layer_once_at_its_highest_place() -> None:
    image = make_image(diff_ids=("a", "b", "a", "c"))
    assert image.mounted_diff_ids == ("b", "a", "c")


def test_image_not_found_has_dockers_text() -> None:
    assert ImageNotFound("x:1").message == "No such image: x:1"
