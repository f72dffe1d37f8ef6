"""Changes of an image in a Dockerfile's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidArgument
from app.domain.image import Healthcheck, ImageConfig
from app.domain.image_changes import apply_changes, duration_ns

S = 10**9


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ("a", "b c")),
        ("CMD a b", "cmd", ("/bin/sh", "-c", "a b")),
        ('entrypoint ["x"]', "entrypoint", ("x",)),
        ('ENV A=1 B="two words"', "env", ("A=1", "B=two words")),
        ("ENV A one two", "env", ("A=one two",)),
        ("LABEL a=b c='d e'", "labels", {"a": "b", "c": "d e"}),
        ("EXPOSE 80 53/udp", "exposed_ports", ("53/udp", "80/tcp")),
        ("USER nobody", "user", "nobody"),
        ("WORKDIR /srv", "working_dir", "/srv"),
        ('VOLUME ["/data"]', "volumes", ("/data",)),
        ("VOLUME /a /b", "volumes", ("/a", "/b")),
        ("STOPSIGNAL SIGQUIT", "stop_signal", "SIGQUIT"),
        ('SHELL ["/bin/bash", "-c"]', "shell", ("/bin/bash", "-c")),
        ("HEALTHCHECK NONE", "healthcheck", Healthcheck(("NONE",))),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
            "healthcheck",
            Healthcheck(("CMD-SHELL", "curl x"), interval_ns=90 * S, retries=2),
        ),
        ('HEALTHCHECK CMD ["true"]', "healthcheck", Healthcheck(("CMD", "true"))),
    ],
)
def test_a_change(change: str, field: str, value: object) -> None:
    assert getattr(apply_changes(ImageConfig(), [change]), field) == value


def test_changes_build_on_each_other() -> None:
    config = apply_changes(
        ImageConfig(env=("A=0", "B=1")), ["ENV A=2", "WORKDIR /a\nWORKDIR b", "CMD x"]
    )
    assert (config.env, config.working_dir) == (("A=2", "B=1"), "/a/b")


@pytest.mark.parametrize(
    "change",
    ["RUN x", "CMD", "ENV A", "LABEL a=b c", "EXPOSE x/tcp", "SHELL sh", "HEALTHCHECK odd",
     "HEALTHCHECK --odd=1 CMD x", "HEALTHCHECK --interval=x CMD y", 'ENV A="'],
)  # fmt: skip
def test_a_change_that_is_none(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes(ImageConfig(), [change])


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_text_is_taken_or_refused(changes: list[str]) -> None:
    try:
        apply_changes(ImageConfig(), changes)
    except InvalidArgument:
        return


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("500ms", S // 2), ("1h2m3.5s", 3723_500_000_000)]
)
def test_duration(text: str, nanoseconds: int) -> None:
    assert duration_ns(text) == nanoseconds
