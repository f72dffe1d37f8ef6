"""Which images are meant."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidArgument
from app.docker_api.image_filters import name_fits
from app.docker_api.progress import bar, human_size, step
from app.domain.reference import Reference


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("busybox", "busybox", True),
        ("busybox", "busybox:latest", True),
        ("busybox", "busy*", True),
        ("busybox", "*:1", False),
        ("team/app:v1", "*", False),
        ("team/app:v1", "*/*", True),
        ("team/app:v1", "team/a?p", True),
        ("team/app:v1", "team/[ab]pp:v[0-9]", True),
        ("localhost:5000/app", "localhost:5000/app", True),
        ("a.b", "a?b", True),
    ],
)
def test_name_fits(name: str, pattern: str, fits: bool) -> None:
    assert name_fits(Reference.parse(name), pattern) is fits


@given(st.text(max_size=30))
def test_any_pattern_is_taken_or_refused(pattern: str) -> None:
    with contextlib.suppress(InvalidArgument):
        name_fits(Reference.parse("busybox"), pattern)


def test_a_class_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        name_fits(Reference.parse("busybox"), "[a")


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0B"), (999, "999B"), (1984539, "1.985MB"), (10**12, "1TB")]
)
def test_human_size(size_bytes: int, text: str) -> None:
    assert human_size(size_bytes) == text


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_bar_has_one_width(done_bytes: int, total_bytes: int) -> None:
    assert len(bar(done_bytes, total_bytes).partition("]")[0]) == 51


def test_a_step_of_unknown_length() -> None:
    line = step("Loading layer", "abc", 10, None)
    assert line.endswith(b"}\r\n")
    assert json.loads(line) == {
        "status": "Loading layer",
        "progressDetail": {"current": 10},
        "progress": "10B",
        "id": "abc",
    }
