"""The reader of JSON from anyone: the same values as the standard library, or one sentence; never long, never a crash."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmerger import InputError
from modelmerger.inputs import strict_json
from modelmerger.inputs.strict_json import read_json


def refused(content: bytes | str, **limits: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_json(content, "model/config.json", **limits)
    (problem,) = caught.value.problems
    assert problem.where == "model/config.json"
    (line,) = caught.value.lines()
    assert line.isprintable()
    assert len(line) <= 300
    return problem.message


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_was_written_is_read(value: Any, escaped: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    for content in (text, text.encode("utf-8", "replace"), b"\xef\xbb\xbf" + text.encode("utf-8", "replace")):
        assert json.dumps(read_json(content, "")) == json.dumps(json.loads(content))


@given(st.binary() | st.text(st.sampled_from('[]{},:"\\ntruefalse0123.eE-+ \n\ufeff')).map(str.encode))
def test_any_bytes_are_a_value_or_a_refusal(content: bytes) -> None:
    try:
        value = read_json(content, "", unique=False)
    except InputError as error:
        assert len(error.lines()) == 1
    else:
        assert json.dumps(value) == json.dumps(json.loads(content.decode("utf-8-sig")))


def test_what_python_writes_though_json_has_none_is_read() -> None:
    found = read_json(b'[NaN, Infinity, -Infinity, 1e999, "\\ud800", 36893488147419103232]', "")
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, math.inf, "\ud800", 2**65]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not sound JSON: Expecting value: line 1 column 1 (char 0)."),
        (b"{", "is not sound JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        (b"{} {}", "is not sound JSON: Extra data: line 1 column 4 (char 3)."),
        (b"[1,\n2,]", "is not sound JSON: Expecting value: line 2 column 3 (char 6)."),
        (b"'a'", "is not sound JSON: "),
        (b"\xff", "is not sound JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte."),
        (b'"\xed\xa0\x80"', "is not sound JSON: 'utf-8' codec can't decode byte 0xed in position 1"),
        ("{}".encode("utf-16"), "is not sound JSON: 'utf-8' codec can't decode byte 0xff"),
        ("{}".encode("utf-16-le"), "is not sound JSON: "),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "is not sound JSON: "),
        (b'{"a": "\x1b"}', "is not sound JSON: Invalid control character at"),
        (b"9" * 5000, "is not sound JSON: Exceeds the limit (4300 digits)"),
        (b'{"a": 1, "b": 2, "a": 3}', "is not sound JSON: the key 'a' is given twice: line 1 column 1 (char 0)."),
        (b'[{"b": {"": 1, "": 1}}]', "is not sound JSON: the key '' is given twice: line 1 column 8 (char 7)."),
        (b'{"\\u0061": 1, "a": 1}', "is not sound JSON: the key 'a' is given twice: line 1 column 1 (char 0)."),
        (
            b'{"\\u001b[2J": 1, "\\u001b[2J": 1}',
            "is not sound JSON: the key '\\x1b[2J' is given twice: line 1 column 1 (char 0).",
        ),
    ],
)
def test_what_is_no_json_is_refused_with_a_sentence(content: bytes, sentence: str) -> None:
    assert refused(content).startswith(sentence)


def test_keys_given_twice_may_be_allowed() -> None:
    assert read_json(b'{"a": 1, "b": 2, "a": 3}', "", unique=False) == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("opening", "closing", "levels"), [("[", "]", 1), ('{"[{": ', "}", 1), ('[0, {"a": 1, "b": ', "}]", 2)]
)
@pytest.mark.parametrize("inside", ["1", '"' + "[{" * 99 + '"'])
def test_depth_is_exact(opening: str, closing: str, levels: int, inside: str) -> None:
    text = opening * (24 // levels) + inside + closing * (24 // levels)
    assert read_json(text, "", depth=24) == json.loads(text)
    assert refused(text, depth=23) == "is nested more than 23 levels deep."
    assert refused(f"[{text}]", depth=24) == "is nested more than 24 levels deep."


def test_a_single_value_has_no_depth_and_an_empty_list_has_one() -> None:
    assert read_json("1", "", depth=0) == 1
    assert read_json("[]", "", depth=1) == []
    assert refused("{}", depth=0) == "is nested more than 0 levels deep."


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 101 + b"]" * 101, b"[" * 900 + b"]" * 900]
)
def test_a_hundred_levels_are_the_usual_limit(content: bytes) -> None:
    assert refused(content) == "is nested more than 100 levels deep."
    assert read_json(b"[" * 100 + b"]" * 100, "")


def test_values_are_counted_without_keys_and_without_what_stands_in_texts() -> None:
    text = '{"a, [": [1, ",,,\\",[[", {"b": 2}], "c": "' + "," * 100 + '"}'
    # The whole, the list, 1, the text, the object, 2 and the last text
    assert read_json(text, "", nodes=7) == json.loads(text)
    assert refused(text, nodes=6) == "holds more than 6 values."
    assert refused("[" + "1," * 1_000_000 + "1]", nodes=1_000_000) == "holds more than 1,000,000 values."


def test_a_refusal_does_not_keep_the_text() -> None:
    """An exception of the decoder holds all that it was given."""
    for content in (b"[1,", b"\xff", b'{"a": 1, "a": 1}', b"[" * 1000):
        with pytest.raises(InputError) as caught:
            read_json(content, "")
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


_CHILD = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
resource.setrlimit(resource.RLIMIT_AS, (600_000_000, 600_000_000))
from modelmerger.inputs import strict_json
from modelmerger.inputs.strict_json import read_json
from modelmerger.values.errors import InputError
size = 1 << 22
for content in (
    "[" * size, "[]," * size, '{"a":' * size, "[" + "[" * 90 + "]" * 90, '["' + '\\\\"' * size, '["' * size, '"' * size,
    "," * size, "9" * size, "-" * size, "1e" + "9" * size, "0." + "9" * size, '["' + "\\\\" * size, " " * size,
    "[" + "1," * size, '["' + ',\\\\"' * size,
):
    try:
        read_json(content.encode(), "it", nodes=1_000_000)
    except InputError as error:
        print(error)
"""


def test_hostile_megabytes_are_answered_within_limits() -> None:
    """B22"""
    environment = {**os.environ, "PYTHONPATH": str(Path(strict_json.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=False, env=environment)
    # All but 91 lists and the fraction are refused.
    assert (len(done.stdout.splitlines()), done.stderr, done.returncode) == (14, "", 0)


_ODD = ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e999]", "[" + "9" * 400 + ".0]"]


@pytest.mark.parametrize("text", _ODD)
@pytest.mark.parametrize("unique", [True, False])
def test_what_is_no_finite_number_is_refused_where_that_is_asked(text: str, unique: bool) -> None:
    """B23"""
    read_json(text, "file")
    with pytest.raises(InputError, match=r"\(line 1.*\) (is no number in JSON|is beyond what)"):
        read_json(text, "file", infinite=(), unique=unique)


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("name", ["Infinity", "-Infinity"])
def test_infinities_are_objects_at_the_keys_where_that_is_asked(name: str, unique: bool) -> None:
    text = f'[{{"a": {name}, "b": {{"a": [[1, {name}, 2.5], "{name}"]}}}}]'
    found = read_json(text, "file", infinite=("a",), unique=unique)
    tag = {"__float__": name}
    assert found == [{"a": tag, "b": {"a": [[1, tag, 2.5], name]}}]
    assert read_json(json.dumps(found), "file", infinite=("a",), unique=unique) == found


_REST = "Write a finite number there, or leave the key out."


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("\n Infinity", "Infinity (line 2) is no number in JSON"),
        ('{"a": NaN}', "NaN (line 1, key a) is no number in JSON"),
        ('{"a": 1e999}', "1e999 (line 1, key a) is beyond what a float64 can hold"),
        ('{"a": {"b": -Infinity}}', "-Infinity (line 1, key a.b) is no number in JSON"),
        ('{"x.a": Infinity}', "Infinity (line 1, key x.a) is no number in JSON"),
        (
            '{"a": Infinity,\n"b\x7f": ["NaN",\n{"c": "\\"", "d": [1E5, 10,\n-1E400]}]}',
            "-1E400 (line 4, key b\\x7f.d) is b",
        ),
        ('{"c": [NaN],\n"b": {"a": NaN}, "a": Infinity}', "NaN (line 1, key c) is no number"),
    ],
)
def test_line_and_key_of_such_a_number_are_said(text: str, place: str) -> None:
    message = refused(text, infinite=("a",))
    assert message.startswith(f"is not sound JSON: {place}")
    assert message.endswith(f". {_REST}")


def test_what_a_key_given_twice_held_first_is_refused_too() -> None:
    message = refused('{"a": Infinity,\n"a": Infinity}', infinite=("a",), unique=False)
    assert message == f"is not sound JSON: Infinity (line 1) is no number in JSON. {_REST}"


def test_finite_numbers_and_texts_are_read_where_that_is_asked() -> None:
    text = '{"a": [1.5e300, -0.0, 12345678901234567890], "b": "NaN, 1e999"}'
    assert read_json(text, "file", infinite=()) == {"a": [1.5e300, -0.0, 12345678901234567890], "b": "NaN, 1e999"}
