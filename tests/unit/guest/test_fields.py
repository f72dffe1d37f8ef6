import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import CorruptData, InvalidArgument
from app.guest.fields import Fields, encode_fields, signed
from app.guest.protocol import Tag

tags = st.sampled_from(Tag)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_field_layout_is_the_contracts() -> None:
    assert encode_fields([(Tag.PID, 258)]) == struct.pack("<HHIQ", 20, 0, 8, 258)
    assert encode_fields([(Tag.NAME, "é")]) == struct.pack("<HHI", 29, 0, 2) + "é".encode()


@given(st.lists(st.tuples(tags, st.integers(0, (1 << 64) - 1))))
def test_numbers_round_trip_in_order(items: list[tuple[Tag, int]]) -> None:
    fields = Fields(encode_fields(items))
    for tag in Tag:
        assert fields.numbers(tag) == [value for item_tag, value in items if item_tag is tag]


@given(st.lists(texts))
def test_texts_round_trip_in_order(values: list[str]) -> None:
    assert Fields(encode_fields([(Tag.ARG, value) for value in values])).texts(Tag.ARG) == values


@given(st.binary())
def test_bytes_of_any_kind_survive_as_text(data: bytes) -> None:
    text = Fields(encode_fields([(Tag.ENV, data)])).text(Tag.ENV)
    if "\0" not in text:
        assert encode_fields([(Tag.ENV, text)]) == encode_fields([(Tag.ENV, data)])


def test_groups_nest() -> None:
    payload = encode_fields(
        [
            (Tag.PROCESS_SPEC, [(Tag.ARG, "sh"), (Tag.RLIMIT, [(Tag.SOFT, 1), (Tag.HARD, 2)])]),
            (Tag.PID, 7),
        ]
    )
    spec = Fields(payload).group(Tag.PROCESS_SPEC)
    assert spec.texts(Tag.ARG) == ["sh"]
    assert [limit.number(Tag.HARD) for limit in spec.groups(Tag.RLIMIT)] == [2]
    assert Tag.PID not in spec


def test_negative_number_is_twos_complement() -> None:
    fields = Fields(encode_fields([(Tag.OOM_SCORE_ADJ, -1000)]))
    assert fields.number(Tag.OOM_SCORE_ADJ) == (1 << 64) - 1000
    assert signed(fields.number(Tag.OOM_SCORE_ADJ)) == -1000


def test_flag_is_0_or_1() -> None:
    assert encode_fields([(Tag.TTY, True)]) == encode_fields([(Tag.TTY, 1)])
    assert Fields(encode_fields([(Tag.TTY, True)])).flag(Tag.TTY)
    assert not Fields(encode_fields([(Tag.TTY, False)])).flag(Tag.TTY)
    assert not Fields(b"").flag(Tag.TTY)


def test_unknown_tags_are_skipped() -> None:
    payload = struct.pack("<HHI3s", 9999, 0, 3, b"new") + encode_fields([(Tag.PID, 7)])
    assert Fields(payload).number(Tag.PID) == 7


@given(st.binary(max_size=100))
def test_decoding_gives_fields_or_corrupt_data(payload: bytes) -> None:
    try:
        fields = Fields(payload)
    except CorruptData:
        return
    for tag in Tag:
        fields.texts(tag)


@given(st.lists(st.tuples(tags, st.binary(max_size=20)), min_size=1), st.data())
def test_cut_off_payload_is_corrupt_or_shorter(
    items: list[tuple[Tag, bytes]], data: st.DataObject
) -> None:
    payload = encode_fields(items)
    cut = data.draw(st.integers(0, len(payload) - 1))
    boundaries = {len(encode_fields(items[:count])) for count in range(len(items))}
    if cut in boundaries:
        Fields(payload[:cut])
    else:
        with pytest.raises(CorruptData):
            Fields(payload[:cut])


@pytest.mark.parametrize(
    ("value", "match"),
    [("a\0b", "NUL"), ("\ud800", "not valid text"), (1 << 64, "64 bits"), (-(1 << 63) - 1, "64")],
    ids=["nul", "surrogate", "too-large", "too-small"],
)
def test_encode_refuses(value: str | int, match: str) -> None:
    with pytest.raises(InvalidArgument, match=match) as caught:
        encode_fields([(Tag.HOSTNAME, value)])
    assert caught.value.field == "HOSTNAME"


def test_missing_and_malformed_numbers_are_corrupt() -> None:
    fields = Fields(encode_fields([(Tag.PID, b"123")]))
    with pytest.raises(CorruptData, match="lacks SIGNAL"):
        fields.number(Tag.SIGNAL)
    with pytest.raises(CorruptData, match="not a number"):
        fields.number(Tag.PID)
    assert fields.number(Tag.SIGNAL, 5) == 5
    assert fields.text(Tag.NAME, "none") == "none"


def test_fields_compare_by_content() -> None:
    payload = encode_fields([(Tag.PID, 7)])
    assert Fields(payload) == Fields(payload) != Fields(b"")
