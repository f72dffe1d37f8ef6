from dataclasses import replace

import pytest

from app.domain.container import Container, ContainerState
from app.domain.container_config import ContainerConfig
from app.web.forms import parse_form
from app.web.listing import ListQuery, matches, ordered, parse_query
from app.web.states import Group
from tests.unit.web.fake_stores import sample


def container(name: str, **fields: object) -> Container:
    config = ContainerConfig(image=f"{name}/app:1", labels={"tier": "web"})
    made = Container(name[0] * 64, name, "sha256:0", config, 1)
    return replace(made, **fields)  # type: ignore[arg-type]


def names(containers: list[Container]) -> list[str]:
    return [one.name for one in containers]


def test_query_survives_its_own_url() -> None:
    query = ListQuery("label:a=b c&d", Group.FAILED, "cpu", descending=True, page=3)
    encoded = query.url(page=3).partition("?")[2]
    assert parse_query(parse_form(encoded)) == query


@pytest.mark.parametrize(
    "encoded", ["state=nope", "sort=secret", "page=-1", "page=0", "page=99999999", "page=%C2%B2"]
)
def test_query_that_makes_no_sense_is_ignored(encoded: str) -> None:
    assert parse_query(parse_form(encoded)) == ListQuery()


def test_filter_text_is_cut() -> None:
    assert len(parse_query(parse_form("q=" + "x" * 5000)).text) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpha", True),
        ("ALPHA app", True),
        ("alpha beta", False),
        ("aaaaaa", True),
        ("label:tier", True),
        ("label:tier=web", True),
        ("label:tier=db", False),
        ("label:other", False),
    ],
)
def test_filter_wants_every_word(text: str, *, expected: bool) -> None:
    assert matches(container("alpha"), ListQuery(text=text)) is expected


def test_filter_by_group() -> None:
    failed = container("alpha", state=ContainerState.EXITED, exit_code=1)
    assert matches(failed, ListQuery(group=Group.FAILED))
    assert not matches(failed, ListQuery(group=Group.STOPPED))


def test_sort_puts_what_has_no_number_last_in_both_directions() -> None:
    containers = [container(name) for name in ("beta", "alpha", "gamma")]
    latest = {"b" * 64: sample(5.0), "g" * 64: sample(90.0)}
    rising = ordered(containers, ListQuery(sort="cpu"), latest)
    falling = ordered(containers, ListQuery(sort="cpu", descending=True), latest)
    assert names(rising) == ["beta", "gamma", "alpha"]
    assert names(falling) == ["gamma", "beta", "alpha"]


def test_sort_by_name_and_back() -> None:
    containers = [container(name) for name in ("beta", "Alpha")]
    assert names(ordered(containers, ListQuery(sort="name"), {})) == ["Alpha", "beta"]
    assert names(ordered(containers, ListQuery(sort="name", descending=True), {})) == [
        "beta",
        "Alpha",
    ]


def test_sort_link_goes_round() -> None:
    query = ListQuery()
    assert query.sort_url("name") == "/containers?sort=name"
    assert ListQuery(sort="name").sort_url("name") == "/containers?sort=-name"
    assert ListQuery(sort="name", descending=True).sort_url("name") == "/containers"
