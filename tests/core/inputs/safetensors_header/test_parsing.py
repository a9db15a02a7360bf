"""The strict parser of safetensors headers against the safetensors package, hostile files, and mutations of valid ones."""

import json
import random
import re
import sys
import tracemalloc
import unicodedata
from collections.abc import Sequence
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs.watching import at_once
from modelmerger import HeaderError, Problem, TensorEntry, build_header
from modelmerger.inputs.safetensors_header import parsing
from modelmerger.inputs.safetensors_header.parsing import parse_header

from tests.core.inputs.safetensors_header.headers import (
    Listed,
    assert_agrees_with_safetensors,
    laid_out,
    metadata,
    read,
    summary,
    tensor_lists,
)
from tests.core.inputs.safetensors_header.hostile_headers import EMPTY, HOSTILE, HostileFile, entry, framed

# What is accepted


def test_offsets_are_those_of_the_file_and_entries_come_in_their_order() -> None:
    raw = f'{{"b":{entry("U8", "[2]", "[4,6]")},"a":{entry("F32", "[]", "[0,4]")},"c":{entry("U8", "[0]", "[4,4]")}}}  '.encode()
    header = parse_header(raw, 6)
    start = 8 + len(raw)
    assert header.data_start == start
    assert list(header.entries.values()) == [
        TensorEntry("a", "F32", (), start, start + 4),
        TensorEntry("c", "U8", (0,), start + 4, start + 4),
        TensorEntry("b", "U8", (2,), start + 4, start + 6),
    ]


def test_a_header_cannot_be_changed() -> None:
    header = parse_header(b'{"__metadata__":{"format":"pt"}}', 0)
    with pytest.raises(TypeError):
        header.entries["a"] = TensorEntry("a", "U8", (), 0, 1)  # type: ignore[index]  # a stand-in, or wrong on purpose
    with pytest.raises(TypeError):
        header.metadata["format"] = "np"  # type: ignore[index]  # a stand-in, or wrong on purpose


ACCEPTED = {
    "no tensors": ("{}", b""),
    "no tensors, with padding": ("{ \t\r\n} \t\r\n", b""),
    "empty metadata": ('{"__metadata__":{ }}', b""),
    "metadata at the end": (f'{{"a":{EMPTY}, "__metadata__" : {{ "k" : "v" }} }}', b""),
    "keys in another order": ('{"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}', bytes(4)),
    "keys in escapes": ('{"a":{"d\\u0074ype":"F\\u00332","sh\\u0061pe":[1],"data\\u005foffsets":[0,4]}}', bytes(4)),
    "spaces everywhere": ('{ "a" : { "dtype" : "F32" , "shape" : [ 1 ] , "data_offsets" : [ 0 , 4 ] } }', bytes(4)),
    "32 dimensions": (f'{{"a":{entry(shape="[" + ",".join("1" * 32) + "]")}}}', bytes(4)),
    "empty at both ends": (
        f'{{"a":{EMPTY},"b":{entry()},"c":{entry(shape="[3,0]", offsets="[4,4]")},"d":{entry(shape="[0]", offsets="[4,4]")}}}',
        bytes(4),
    ),
    "a large empty shape": (f'{{"a":{entry("U8", f"[0,{2**62}]", "[0,0]")}}}', b""),
    "packed elements": (f'{{"a":{entry("F4", "[2,3]", "[0,3]")},"b":{entry("F6_E3M2", "[4]", "[3,6]")}}}', bytes(6)),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_but_valid_headers_are_accepted(case: str) -> None:
    content = framed(*ACCEPTED[case])
    assert_agrees_with_safetensors(read(content), content)


@pytest.mark.parametrize(
    "name",
    [
        "a", " ", "../../etc/passwd", "/etc/passwd", "C:\\", "a\u202eb", "\u2066a", "\u200b", "\ufeff", "a/b", "😀", '"', "\\",
        "مرحبا.weight", "a" * 1024, "ط" * 512, "__metadata", "__metadata___", "nan", "\ufffd", "\uffff", "\u2028",
    ],
)  # fmt: skip
def test_odd_names_are_kept_as_they_are(name: str) -> None:
    for spelling in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        content = framed(f"{{{json.dumps('x')}:{EMPTY},{spelling}:{EMPTY}}}")
        header = read(content)
        assert list(header.entries) == ["x", name]
        assert_agrees_with_safetensors(header, content)


def test_composed_and_decomposed_twins_stay_two() -> None:
    names = [unicodedata.normalize(form, "é.weight") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    content = build_header([(names[0], "U8", [1], 0, 1), (names[1], "U8", [1], 1, 2)], {}) + b"ab"
    assert list(read(content).entries) == names


SPACES = ["", " ", "\n  ", "\t\r\n"]


def spelled(value: object, chance: random.Random) -> str:
    """JSON in some spelling: spaces, escapes, and the order of the keys are left to chance."""

    def space() -> str:
        return chance.choice(SPACES)

    if isinstance(value, dict):
        pairs = list(value.items())
        chance.shuffle(pairs)
        members = (f"{spelled(key, chance)}{space()}:{space()}{spelled(item, chance)}" for key, item in pairs)
        return "{" + space() + f"{space()},{space()}".join(members) + space() + "}"
    if isinstance(value, list):
        return "[" + space() + f"{space()},{space()}".join(spelled(item, chance) for item in value) + space() + "]"
    if isinstance(value, str) and chance.random() < 0.2:
        return '"' + re.sub("(....)", r"\\u\1", value.encode("utf-16-be").hex()) + '"'
    return json.dumps(value, ensure_ascii=chance.random() < 0.5)


def valid_header(tensors: Sequence[Listed], extra: dict[str, str]) -> dict[str, object]:
    described: dict[str, object] = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        for name, dtype, shape, begin, end in tensors
    }
    return {"__metadata__": extra, **described} if extra else described


@settings(database=None, deadline=None)
@given(tensor_lists, metadata, st.randoms(use_true_random=False))
def test_a_valid_header_is_read_alike_in_every_spelling(
    tensors: list[tuple[str, str, list[int]]], extra: dict[str, str], chance: random.Random
) -> None:
    listed, size = laid_out(tensors)
    data = chance.randbytes(size)
    document = valid_header(listed, extra)
    expected = {name: (dtype, shape, begin, end) for name, dtype, shape, begin, end in listed}
    for text in (
        json.dumps(document, separators=(",", ":"), ensure_ascii=False),
        json.dumps(document),
        json.dumps(document, indent=1),
        spelled(document, chance),
    ):
        content = framed(text.encode(), data)
        header = read(content)
        assert summary(header) == expected
        assert header.metadata == extra
        assert_agrees_with_safetensors(header, content)


# What is refused


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_the_reason_and_at_once(case: str) -> None:
    hostile: HostileFile = HOSTILE[case]
    with at_once(), pytest.raises(HeaderError) as error:
        read(hostile.content)
    assert hostile.reason in error.value.reason
    assert error.value.tensor == hostile.tensor
    assert error.value.problems == (Problem(error.value.reason, tensor=hostile.tensor or ""),)
    assert error.value.reason.isprintable()
    assert len(error.value.reason) <= 300


@pytest.mark.parametrize("case", [name for name, hostile in HOSTILE.items() if len(hostile.content) > 300_000])
def test_hostile_files_take_at_most_twenty_times_their_size(case: str) -> None:
    content = HOSTILE[case].content
    tracemalloc.start()
    try:
        with pytest.raises(HeaderError):
            read(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(content)


DENSE = {
    "alike": lambda i: f'"{i:x}":{EMPTY}',
    "all different": lambda i: f'"{i:x}":{entry("F4", f"[{i},0]", "[0,0]")}',
    "of wide names": lambda i: f'"{chr(0x4E00 + i % 999)}{i // 999}":{entry("F4", "[0]", "[0,0]")}',
    "of names beyond the basic plane": lambda i: f'"😀{i}":{entry("F4", f"[{i},0]", "[0,0]")}',
}


@pytest.mark.parametrize("case", DENSE)
def test_a_megabyte_dense_with_tensors_is_read_at_once(case: str) -> None:
    content = framed("{" + ",".join(DENSE[case](i) for i in range(17_000)) + "}")
    with at_once():
        assert len(read(content).entries) == 17_000


@pytest.mark.parametrize("case", DENSE)
def test_headers_dense_with_tensors_take_at_most_twenty_times_their_size(case: str) -> None:
    content = framed("{" + ",".join(DENSE[case](i) for i in range(3_000)) + "}")
    tracemalloc.start()
    try:
        assert len(read(content).entries) == 3_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(content)


def test_metadata_of_wide_characters_stays_within_twenty_times_its_size() -> None:
    members = (f'"{chr(0x100 + i % 1900)}{chr(0x61 + i // 1900)}":"Āb"' for i in range(10_000))
    content = framed('{"__metadata__":{' + ",".join(members) + "}}")
    tracemalloc.start()
    try:
        assert len(read(content).metadata) == 10_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(content) + (1 << 20)


def test_a_repeated_spelling_does_not_excuse_what_follows_it() -> None:
    """Entries that are spelled like one before are read on a shorter way, which must refuse as much as the long one."""
    first = f'"first":{entry("U8", "[2]", "[0,2]")}'
    for member, reason, tensor in [
        (f'"b":{entry("U8", "[2]", "[2,3]")}', "takes 2 bytes, and data_offsets 2 to 3 hold 1", "b"),
        (f'"b":{entry("U8", "[2]", "[4,2]")}', "begin at 4 and end before that", "b"),
        (f'"b":{entry("U8", "[2]", "[3,5]")}', "end at 5, and the data at 4", "b"),
        (f'"b":{entry("U8", "[2]", "[-0,2]")}', "a number below 0", "b"),
        (f'"b":{entry("U8", "[2]", "[02,4]")}', "is not JSON", "b"),
        (f'"b":{entry("U8", "[2]", "[2,4]")[:-1]},"x":1}}', "'data_offsets', 'x'", "b"),
        (f'"first":{entry("U8", "[2]", "[2,4]")}', "twice", "first"),
        (f'"":{entry("U8", "[2]", "[2,4]")}', "empty", None),
        (f'"{"b" * 1025}":{entry("U8", "[2]", "[2,4]")}', "1,025 bytes", None),
        (f'"\x7f":{entry("U8", "[2]", "[2,4]")}', "control character", None),
        (f'"__metadata__":{entry("U8", "[2]", "[2,4]")}', "only strings are allowed", None),
    ]:
        with pytest.raises(HeaderError) as error:
            read(framed(f"{{{first},{member}}}", bytes(4)))
        assert reason in error.value.reason
        assert error.value.tensor == tensor


def test_a_low_limit_on_digits_is_an_error_of_the_header() -> None:
    limit = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        with pytest.raises(HeaderError, match="is not JSON: Exceeds the limit"):
            parse_header(f'{{"a":{entry(shape="[" + "9" * 2000 + "]")}}}'.encode(), 4)
    finally:
        sys.set_int_max_str_digits(limit)


TOKENS = ["-0", "1e3", "01", "1.0", "true", "null", "NaN", "9" * 19, str(2**64), "[", "]", "{", "}", "[]", "{}", '"', "\\", ",", ":",
          '"a"', '"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"F32"', '"F4"', "0", "1", "4", "\0", "\x85", "\ud83d",
          "\\ud83d", "\\u0061", " ", "\n", "\x0c", "\u00a0", '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', '"__metadata__":{},']  # fmt: skip
inserts = st.sampled_from(TOKENS).map(lambda token: token.encode("utf-8", "surrogatepass")) | st.binary(max_size=3)
edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 6), inserts), min_size=1, max_size=4)


@settings(database=None, deadline=None, max_examples=300)
@given(tensor_lists, metadata, edits, st.integers(-9, 9), st.booleans(), st.randoms(use_true_random=False))
def test_mutated_headers_are_refused_or_read_as_safetensors_reads_them(
    tensors: list[tuple[str, str, list[int]]],
    extra: dict[str, str],
    changes: list[tuple[float, int, bytes]],
    shift: int,
    true_length: bool,
    chance: random.Random,
) -> None:
    listed, size = laid_out(tensors)
    text = bytearray(json.dumps(valid_header(listed, extra), separators=(",", ":"), ensure_ascii=False).encode())
    for place, removed, inserted in changes:
        begin = int(place * (len(text) + 1))
        text[begin : begin + removed] = inserted
    data = chance.randbytes(max(0, size + chance.choice([0, 0, 0, 0, -1, 1, 4])))
    content = framed(bytes(text), data, None if true_length else max(0, len(text) + shift))
    try:
        with at_once():
            header = read(content)
    except HeaderError as error:
        assert error.reason.isprintable()
        assert len(error.reason) <= 300
    else:
        assert_agrees_with_safetensors(header, content)


@settings(database=None, deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused_or_read_as_safetensors_reads_them(noise: bytes, in_frame: bool) -> None:
    content = framed(b"{" + noise) if in_frame else noise
    try:
        header = read(content)
    except HeaderError:
        return
    assert_agrees_with_safetensors(header, content)


@settings(database=None, deadline=None)
@given(tensor_lists, st.integers(0, 400), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_as_safetensors_reads_it(
    tensors: list[tuple[str, str, list[int]]], place: int, bit: int
) -> None:
    listed, size = laid_out(tensors)
    content = bytearray(build_header(listed, {"format": "pt"}))
    content[place % len(content)] ^= 1 << bit
    content += bytes(size)
    try:
        header = read(bytes(content))
    except HeaderError:
        return
    assert_agrees_with_safetensors(header, bytes(content))


# How long it takes


def many(count: int) -> bytes:
    members = (
        f'"l.{i // 100}.experts.{i % 100}.w":{entry("BF16", "[64,64]", f"[{i << 13},{i + 1 << 13}]")}'
        for i in range(count)
    )
    return f"{{{','.join(members)}}}".encode()


def calls(count: int) -> int:
    """Of Python and C functions, in `parse_header`: the same on every machine."""
    raw, counted = many(count), 0

    def count_call(_: FrameType, event: str, __: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count_call)
    try:
        header = parse_header(raw, count << 13)
    finally:
        sys.setprofile(None)
    assert len(header.entries) == count
    return counted


def test_ten_times_the_tensors_take_ten_times_the_calls() -> None:
    assert calls(5_000) - calls(500) < 8 * 4_500


def test_fifty_thousand_tensors_are_read_at_once() -> None:
    with at_once():
        assert len(parse_header(many(50_000), 50_000 << 13).entries) == 50_000


@pytest.mark.parametrize(
    "spelled",
    [
        '"\\u0061{0}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '"{0}":{{"dtype":"U8","shape":[0],"data\\u005foffsets":[0,0]}}',
        '"{0}":{{"data_offsets":[0,0],"dtype":"U8","shape":[0]}}',
        '"{0}" : {{ "dtype":"U8","shape":[0],"data_offsets":[0,0] }}',
        '"س{0}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '"{0}":{{"dtype":"U8","shape":[0,{0}],"data_offsets":[0,0]}}',
    ],
    ids=["name in escapes", "key in escapes", "other order", "spaces", "letters", "shapes"],
)
def test_unusual_spellings_cost_no_more_than_a_million_usual_ones(
    spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2"""
    monkeypatch.setattr(parsing, "MOST_UNUSUAL", 50)

    def header(count: int) -> bytes:
        return ("{" + ",".join(map(spelled.format, range(count))) + "}").encode()

    assert len(parse_header(header(50), 0).entries) == 50
    with pytest.raises(HeaderError, match="at most 50 tensors may be spelled in another way than safetensors"):
        parse_header(header(51), 0)


@pytest.mark.long
def test_a_million_tensors_take_seconds() -> None:
    with at_once():
        assert len(parse_header(many(1_000_000), 1_000_000 << 13).entries) == 1_000_000
