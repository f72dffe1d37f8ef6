"""Which containers a list has, and what each says of itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidArgument, NotFound
from app.docker_api.container_list import Listed, labels_match, list_view, select, status_text
from app.docker_api.parameters import Filters
from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.domain.health import Health, HealthStatus
from app.domain.image import Image, ImageConfig

S = 10**9
IMAGE = Image(
    id="sha256:" + "a" * 64,
    references=(),
    config=ImageConfig(cmd=("sh",), labels={"from": "image"}),
    created=None,
    architecture="amd64",
    os="linux",
    diff_ids=(),
    size_bytes=5,
    manifest_digest="",
)
MADE = Container(
    id="1" * 64,
    name="made",
    image_id=IMAGE.id,
    config=ContainerConfig(image="i", labels={"team": "web", "empty": ""}),
    created_at_ns=10 * S,
)
RUNS = replace(
    MADE, id="2" * 64, name="runs", state=ContainerState.RUNNING, started_at_ns=20 * S,
    created_at_ns=20 * S,
)  # fmt: skip
ENDED = replace(
    RUNS, id="3" * 64, name="ended", state=ContainerState.EXITED, exit_code=3,
    finished_at_ns=40 * S, created_at_ns=30 * S,
)  # fmt: skip
ALL = [Listed(each, IMAGE) for each in (ENDED, RUNS, MADE)]


def names(filters: Filters, *, all: bool = True, limit: int = 0) -> list[str]:
    def find_image(name: str) -> Image:
        if name != "i":
            raise NotFound(name)
        return IMAGE

    chosen = select(
        ALL,
        filters,
        all=all,
        limit=limit,
        find=lambda name: next((c.container for c in ALL if c.container.name == name), None),
        find_image=find_image,
    )
    return [each.container.name for each in chosen]


def test_only_those_that_run_are_listed() -> None:
    assert names({}, all=False) == ["runs"]
    assert names({}) == ["ended", "runs", "made"]
    assert names({}, all=False, limit=2) == ["ended", "runs"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"status": ("exited", "created")}, ["ended", "made"]),
        ({"exited": ("3",)}, ["ended"]),
        ({"exited": ("0",)}, []),
        ({"label": ("team=web", "from=image")}, ["ended", "runs", "made"]),
        ({"label": ("team=db",)}, []),
        ({"name": ("^/ru",)}, ["runs"]),
        ({"name": ("un", "ade")}, ["runs", "made"]),
        ({"id": ("222",)}, ["runs"]),
        ({"ancestor": ("i", "gone")}, ["ended", "runs", "made"]),
        ({"ancestor": ("gone",)}, []),
        ({"before": ("ended",)}, ["runs", "made"]),
        ({"since": ("made",), "before": ("ended",)}, ["runs"]),
        ({"network": ("none",)}, ["ended", "runs", "made"]),
        ({"network": ("bridge",)}, []),
        ({"is-task": ("true",)}, []),
        ({"is-task": ("false",)}, ["ended", "runs", "made"]),
    ],
    ids=str,
)
def test_filters(filters: Filters, found: list[str]) -> None:
    assert names(filters) == found


@pytest.mark.parametrize(
    "filters", [{"status": ("odd",)}, {"exited": ("x",)}, {"health": ("odd",)}], ids=str
)
def test_a_value_that_means_nothing_is_refused(filters: Filters) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        names(filters)


def test_before_a_container_that_there_is_not() -> None:
    with pytest.raises(NotFound, match="No such container: gone"):
        names({"before": ("gone",)})


@given(st.text(max_size=20))
def test_any_pattern_of_a_name_is_borne(pattern: str) -> None:
    assert set(names({"name": (pattern,)})) <= {"ended", "runs", "made"}


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: "=" not in key), st.text()))
def test_labels_match_themselves(labels: dict[str, str]) -> None:
    assert labels_match(tuple(f"{key}={value}" for key, value in labels.items()), labels)
    assert labels_match(tuple(labels), labels)
    assert not labels_match(("no=",), labels) or "no" in labels


@pytest.mark.parametrize(
    ("container", "health", "text"),
    [
        (MADE, None, "Created"),
        (RUNS, None, "Up 30 seconds"),
        (RUNS, Health(), "Up 30 seconds (health: starting)"),
        (RUNS, Health(HealthStatus.UNHEALTHY), "Up 30 seconds (unhealthy)"),
        (replace(RUNS, state=ContainerState.PAUSED), None, "Up 30 seconds (Paused)"),
        (ENDED, None, "Exited (3) 10 seconds ago"),
        (replace(ENDED, state=ContainerState.RESTARTING), None, "Restarting (3) 10 seconds ago"),
        (replace(ENDED, state=ContainerState.REMOVING), None, "Removal In Progress"),
        (replace(ENDED, state=ContainerState.DEAD), None, "Dead"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_status_text(container: Container, health: Health | None, text: str) -> None:
    assert status_text(container, health, now_ns=50 * S) == text


def test_a_command_is_shown_as_docker_quotes_it() -> None:
    config = ContainerConfig(image="i", command=("sh", "-c", "echo a b"))
    view = list_view(Listed(replace(MADE, config=config), IMAGE), "i", {})
    assert view["Command"] == "sh -c 'echo a b'"
    assert view["Created"] == 10
