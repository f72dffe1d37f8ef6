from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.lines import LogCursor, NewLine
from app.logs.search import _words
from tests.unit.logs.lab import OUT, Lab


async def store_texts(lab: Lab, *texts: str | bytes, name: str = "one", begin_ns: int = 1) -> None:
    lines = [
        NewLine(time_ns, OUT, text if isinstance(text, bytes) else text.encode())
        for time_ns, text in enumerate(texts, begin_ns)
    ]
    await lab.store.append(name, lines, LogCursor("vm", lab.store.last_seq(name) + len(lines)))


async def found(lab: Lab, *words: str, limit: int = 100) -> list[str]:
    return [hit.line.text for hit in await lab.store.search(words, limit=limit)]


@pytest.fixture(params=["tail", "chunks"])
def place(request: pytest.FixtureRequest, small_chunks: Callable[[int], None]) -> str:
    """Whether lines lie in the tail or in sealed chunks: search must not care."""
    if request.param == "chunks":
        small_chunks(1)
    return str(request.param)


async def test_every_word_must_be_in_the_line(lab: Lab, place: str) -> None:
    await store_texts(lab, "alpha beta", "alpha gamma", "beta gamma")
    assert await found(lab, "alpha", "gamma") == ["alpha gamma"]
    assert await found(lab, "gamma alpha") == ["alpha gamma"]
    assert await found(lab, "alpha", "delta") == []


async def test_words_of_one_chunk_in_different_lines_are_no_hit(
    lab: Lab, small_chunks: Callable[[int], None]
) -> None:
    small_chunks(3)
    await store_texts(lab, "alpha", "beta", "alpha beta")
    assert await found(lab, "alpha", "beta") == ["alpha beta"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GET /api/v1/items/777 200", ["items/777"]),
        ("GET /api/v1/items/777 200", ["get", "V1"]),
        ("user=ann@example.com", ["ann@example.com"]),
        ("snake_case", ["case"]),
        ("Größe ÄNDERN", ["grösse"]),
        ("Größe ÄNDERN", ["größe", "ändern"]),
        ("\u65e5\u672c\u8a9e text", ["\u65e5\u672c\u8a9e"]),
        ("cafe\u0301 noir", ["cafe\u0301"]),
        ('quote " AND OR NOT', ['"', "and", "or", "not"]),
        ("NEAR(a b) *", ["NEAR(a b)*"]),
        ("x^2 col:val", ["col:val", "x^2"]),
    ],
)
async def test_words_of_any_kind(lab: Lab, place: str, text: str, words: list[str]) -> None:
    await store_texts(lab, "something else", text)
    expected = [] if "grösse" in words else [text]  # ß is a letter of its own
    assert await found(lab, *words) == expected


@pytest.mark.parametrize("words", [[], [""], ["  ", "-/'\""], ["\0"]])
async def test_no_words_find_nothing(lab: Lab, place: str, words: list[str]) -> None:
    await store_texts(lab, "alpha")
    assert await found(lab, *words) == []


async def test_part_of_a_word_is_no_hit(lab: Lab, place: str) -> None:
    await store_texts(lab, "errors", "err")
    assert await found(lab, "error") == []
    assert await found(lab, "err") == ["err"]


async def test_bytes_that_are_no_text_do_not_hide_their_line(lab: Lab, place: str) -> None:
    await store_texts(lab, b"\xff\xfe alpha \0beta\xff")
    assert await found(lab, "alpha", "beta") == ["\ufffd\ufffd alpha \0beta\ufffd"]


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 100])
async def test_newest_lines_come_first(lab: Lab, place: str, limit: int) -> None:
    await store_texts(lab, *(f"word {number}" for number in range(10)))
    expected = [f"word {number}" for number in range(9, -1, -1)]
    assert await found(lab, "word", limit=limit) == expected[:limit]


async def test_newest_first_over_containers_days_and_sealing(
    lab: Lab, small_chunks: Callable[[int], None]
) -> None:
    small_chunks(3)
    await store_texts(lab, *(f"old {n} word" for n in range(4)), name="one", begin_ns=1)
    lab.next_day()
    await store_texts(lab, *(f"a{n} word" for n in range(4)), name="one", begin_ns=101)
    await store_texts(lab, *(f"b{n} word" for n in range(4)), name="two", begin_ns=99)
    assert await found(lab, "word", limit=10) == [
        *("a3 word", "a2 word", "a1 word", "b3 word", "a0 word", "b2 word", "b1 word", "b0 word"),
        *("old 3 word", "old 2 word"),
    ]


async def test_search_in_some_containers(lab: Lab, place: str) -> None:
    for name in ("one", "two", "three"):
        await store_texts(lab, "alpha", name=name)
    hits = await lab.store.search(["alpha"], container_ids=["three", "one", "nobody"])
    assert sorted(hit.container_id for hit in hits) == ["one", "three"]
    assert await lab.store.search(["alpha"], container_ids=[]) == []


async def test_hit_is_the_stored_line(lab: Lab, place: str) -> None:
    await store_texts(lab, "alpha", "beta")
    (hit,) = await lab.store.search(["beta"])
    assert [hit.line] == await lab.store.read("one", from_seq=2, limit=1)


@settings(deadline=None)
@given(st.text(max_size=50))
def test_words_are_words(text: str) -> None:
    for word in _words(text):
        assert _words(word) == [word]
        assert '"' not in word
