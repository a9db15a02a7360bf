"""Config documents: what is read, what is refused and in which words, and that hostile ones stay within 2 s and 200 MB."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger.config.documents import contents as documents_contents
from modelmerger.config.documents import document as documents
from modelmerger.config.documents import yaml_text as documents_yaml
from modelmerger.config.documents.document import DocumentError, dump_yaml, parse_document, read_document
from modelmerger.values.errors import ConfigError

DATA = Path(__file__).parent / "data"
MIB = 1 << 20

Format = Literal["yaml", "json"]


@pytest.fixture(params=["libyaml", "python"])
def _each_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        if request.param == "python":
            patch.delattr(yaml, "CSafeLoader", raising=False)
        importlib.reload(documents_yaml)
        yield
    importlib.reload(documents_yaml)


def parse(text: bytes | str, format: Format = "yaml") -> dict[str, Any]:
    return parse_document(text, source="test", format=format)


def problems_of(text: bytes | str, format: Format = "yaml") -> tuple[str, ...]:
    with pytest.raises(DocumentError) as caught:
        parse(text, format)
    assert all(problem.where == "test" for problem in caught.value.problems)
    return tuple(problem.message for problem in caught.value.problems)


def value_of(scalar: str) -> object:
    return parse(f"key: {scalar}")["key"]


# What is read


@pytest.mark.usefixtures("_each_parser")
def test_every_kind_of_value_is_read_by_the_core_schema() -> None:
    document = read_document(DATA / "every_kind.yaml")
    expected = {
        "strategy": "task_arithmetic",
        "models": [
            {"path": "./models/عامية", "weight": 0.4, "operation": "add"},
            {"path": "org/name@main", "weight": -1, "name": "no"},
        ],
        "words": ["yes", "no", "on", "off", "Yes", "NO", "y", "n"],
        "truths": [True, True, True, False, False, False],
        "nothing": [None, None, None, None],
        "empty": None,
        "integers": [0, 1, -1, 7, 31, 2**64 - 1, -(2**63)],
        "floats": [0.4, 1e-8, 1000.0, 0.5, -150.0, 1.0, -0.0, 7.5],
        "not_numbers": [
            *("1:30", "2024-01-31", "2024-01-31T10:00:00Z", "017", "0o17", "1_000"),
            *("1e", "e5", "0b11", "1.2.3", "+", "."),
        ],
        "quoted": ["true", "null", "1e-8", "1", ""],
        "on": "quoted keys are texts",
        "1": "one",
        "prompt": "السلام عليكم\nكيف الحال؟\n",
        "folded": "one line",
        "escaped": "tab\tnewline\nsnowman\u2603",
    }
    # json.dumps tells 1 from 1.0 and from True, 0.0 from -0.0, and shows the order of the keys.
    assert json.dumps(document) == json.dumps(expected)


def test_json_gives_the_same_values_as_the_standard_library() -> None:
    text = '{"a": [1, -0, 0.5, 1E5, -0.0, true, false, null],\r\n\t"b": {"": {}}, "c": [], "d": "\\ud83d\\ude00\\/\\n"}'
    assert json.dumps(parse(text, "json")) == json.dumps(json.loads(text))


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    for name in ("config.json", "config.JSON"):
        (tmp_path / name).write_text("key: value")
        with pytest.raises(DocumentError, match="line 1, column 1: this is not JSON"):
            read_document(tmp_path / name)
    for name in ("config.yaml", "config.yml", "config"):
        (tmp_path / name).write_text("key: value")
        assert read_document(tmp_path / name) == {"key": "value"}


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_a_byte_order_mark_is_skipped(format: Format) -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}', format) == {"a": 1}
    assert parse('\ufeff{"a": 1}', format) == {"a": 1}


def test_a_byte_order_mark_moves_no_column() -> None:
    assert problems_of('\ufeff{"a": 1, "a": 2}')[0].startswith("line 1, column 10: key 'a'")


# What aliases and merge keys stand for

RECIPE = """
defaults: &defaults
  weight: 0.5
  tags: &tags [a, b]
other: &other {weight: 1, name: o}
models:
- <<: *defaults
  path: ./a
- {path: ./b, <<: [*other, *defaults], tags: *tags}
- <<: {name: inline}
- *other
again: *tags
<<: *other
"""


READ = {
    RECIPE: {
        "weight": 1,
        "name": "o",
        "defaults": {"weight": 0.5, "tags": ["a", "b"]},
        "other": {"weight": 1, "name": "o"},
        "models": [
            {"weight": 0.5, "tags": ["a", "b"], "path": "./a"},
            {"weight": 1, "tags": ["a", "b"], "name": "o", "path": "./b"},
            {"name": "inline"},
            {"weight": 1, "name": "o"},
        ],
        "again": ["a", "b"],
    },
    "a: &a x\nb: {*a : *a}": {"a": "x", "b": {"x": "x"}},
    "a: &a\nb: *a": {"a": None, "b": None},
    "&a b: *a": {"b": "b"},
    "a: &a-1_b 'no'\nb: *a-1_b": {"a": "no", "b": "no"},
    "a: {<<: []}\nb: {<<: {}}": {"a": {}, "b": {}},
    "a: &a {k: 1, l: 1}\nb: &b {<<: *a, l: 2, m: 2}\nc: {m: 3, <<: [*b, {z: 0, k: 5}]}": {
        "a": {"k": 1, "l": 1},
        "b": {"k": 1, "l": 2, "m": 2},
        "c": {"z": 0, "k": 1, "l": 2, "m": 3},
    },
}
"""As PyYAML 6.0.3 reads them, and https://yaml.org/type/merge.html says it."""


@pytest.mark.usefixtures("_each_parser")
@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_aliases_and_merge_keys_are_read_as_yaml_says(text: str, expected: Any) -> None:
    # json.dumps shows the order of the keys as well, which decides between patterns.
    assert json.dumps(parse(text)) == json.dumps(expected)


@pytest.mark.usefixtures("_each_parser")
def test_each_alias_gets_a_copy_of_its_own() -> None:
    document = parse(RECIPE)
    document["defaults"]["tags"].append("c")
    document["other"]["name"] = "changed"
    assert document["again"] == document["models"][0]["tags"] == document["models"][1]["tags"] == ["a", "b"]
    assert document["models"][3]["name"] == document["models"][1]["name"] == "o"


def test_a_merge_key_in_quotes_and_in_json_is_a_key_like_others() -> None:
    assert parse("'<<': {a: 1}") == parse('{"<<": {"a": 1}}', "json") == {"<<": {"a": 1}}
    assert parse("a: <<") == {"a": "<<"}


def test_what_is_wrong_at_an_anchor_is_said_once() -> None:
    assert problems_of("a: &a [.nan, !x 1]\nb: [*a, *a]\nc: {<<: {d: *a}}") == (
        f"line 1, column 8: {NUMBER}",
        "line 1, column 14: tag '!x' is not supported. Remove it, or quote the text.",
    )


# What is refused, with the place

NUMBER = "the number is not finite or does not fit into 64 bits. Give another one."
REFUSED = {
    "duplicate_keys.yaml": [
        "line 4, column 3: key 'weight' is given twice. Remove one.",
        "line 6, column 1: key 'strategy' is given twice. Remove one.",
    ],
    "duplicate_keys.json": ["line 2, column 13: this is not JSON (the key 'weight' is given twice). Correct it there"],
    "bad_numbers.yaml": [
        f"line {line}, column {column}: {NUMBER}"
        for line, column in [(1, 4), (2, 5), (2, 12), (3, 4), (4, 4), (5, 4), (6, 4), (7, 4)]
    ],
    "bad_numbers.json": [f"{path}: {NUMBER}" for path in ("a", "b[0]", "b[1]", "c", "e", "f")],
    "python_tags.yaml": [
        "line 2, column 9: tag '!!python/object/apply:os.system' is not supported.",
        "line 3, column 7: tag '!!python/name:os.system' is not supported.",
        "line 4, column 8: tag '!custom' is not supported.",
    ],
    "keys.yaml": [
        *(
            f"line {line}, column 1: key '{key}' is not a text to every reader of YAML. Put it in quotes."
            for line, key in enumerate(["on", "yes", "No", "1", "0.5", "null", "~", "true"], 1)
        ),
        "line 9, column 3: key '['a', 'b']' is not a text to every reader of YAML.",
        f"line 13, column 1: {NUMBER}",
        "line 13, column 1: key '.nan' is not a text to every reader of YAML.",
        "line 11, column 1: '<<' merges mappings.",
    ],
    "two_documents.yaml": ["line 2, column 1: this is not YAML (expected a single document in the stream"],
    "list.yaml": ["the document must be a mapping"],
    "empty.yaml": ["the document must be a mapping"],
    "nul.yaml": ["line 2, column 4: this is not UTF-8, or a control character. Remove it."],
    "escaped_control.yaml": ["line 2, column 4: the character U+001B is not allowed. Remove it."],
    "escaped_control.json": [
        "a: the character U+0000 is not allowed. Remove it.",
        "b: the character U+D800 is not allowed. Remove it.",
    ],
    "not_utf8.yaml": ["line 2, column 8: this is not UTF-8, or a control character. Remove it."],
    "directive.yaml": ["line 1, column 1: '%' starts a YAML directive here."],
    "tab.yaml": ["line 3, column 1: this is not YAML"],
    "glob_key.yaml": ["line 2, column 4: this is not YAML"],
    "unclosed.yaml": ["line 3, column 2: this is not YAML"],
    "trailing_comma.json": [
        "line 3, column 1: this is not JSON (Expecting property name enclosed in double quotes). Correct it there"
    ],
    "colon.yaml": ["line 1, column 13: this is not YAML"],
}


@pytest.mark.usefixtures("_each_parser")
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_with_every_place(name: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(DATA / name)
    problems = [problem.message for problem in caught.value.problems]
    assert [p[: len(e)] for p, e in zip(problems, REFUSED[name], strict=True)] == REFUSED[name]
    assert {problem.where for problem in caught.value.problems} == {str(DATA / name)}
    for problem in problems:
        assert len(problem) <= 300
        assert problem.endswith(".")
        assert ". " in problem or "must be" in problem, "says what to do"


def test_every_hostile_file_is_tested() -> None:
    assert {path.name for path in DATA.iterdir()} == {*REFUSED, "every_kind.yaml", "alias_bomb.yaml"}


@pytest.mark.usefixtures("_each_parser")
@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: !x!y 1", "line 1, column 4: this is not YAML (while parsing a node found undefined tag handle"),
        ("a: !<tag:example.org,2024:x> 1", "line 1, column 4: tag 'tag:example.org,2024:x'"),
        ("a: !!str 1", "line 1, column 4: tag '!!str'"),
        ("!!map {a: 1}", "line 1, column 1: tag '!!map'"),
        ("a: &", "line 1, column 5: this is not YAML (while scanning an anchor"),
        ("a: 1\n*b : 1", "line 2, column 1: this is not YAML (found undefined alias"),
        ("a: *b\nb: &b 1", "line 1, column 4: this is not YAML (found undefined alias"),
        ("a: &b 1\nc: &b 1", "line 2, column 4: this is not YAML (found duplicate anchor"),
        ("a: &b [{c: *b}]", "line 1, column 8: more than 50 levels of nesting."),
        ("a: &b {<<: *b}", "line 1, column 4: more than 50 levels of nesting."),
        ("&b a: 1\nc: {d: 1}\n*b : 1", "line 1, column 1: key 'a' is given twice."),
        ("a: &b 1\n*b : 2", "line 1, column 4: key '1' is not a text to every reader of YAML."),
        ("a: &b []\n*b : 2", "line 1, column 4: key '[]' is not a text to every reader of YAML."),
        ("<<: a", "line 1, column 1: '<<' merges mappings."),
        ("<<: [{a: 1}, [b]]", "line 1, column 1: '<<' merges mappings."),
        ("<<: {a: 1}\n<<: {b: 1}", "line 2, column 1: key '<<' is given twice."),
        ("<<: {a: 1}\n'<<': 1", "line 2, column 1: key '<<' is given twice."),
        ("{? [x] : 1, b: 2}", "line 1, column 4: key '['x']' is not a text"),
        ("? {x: 1}\n: {y: [2]}\nb: 2", "line 1, column 3: key '{'x': 1}' is not a text"),
        ("a: 1\n?\n: 2", "line 2, column 2: key '' is not a text to every reader of YAML."),
        ("null", "the document must be a mapping"),
        ("# nothing\n", "the document must be a mapping"),
        ("---\n", "the document must be a mapping"),
        ("a: 1\n...\n%YAML 1.2\n---\nb: 2", "line 3, column 1: '%' starts a YAML directive here."),
        ("a: @b", "line 1, column 4: this is not YAML"),
        ('a: "\\ud800"', "line 1, column"),
        ('a: "\\UFFFFFFFF"', ""),
        ("a: !<%ED%A0%80> b", ""),
        ("a: '\ud800'", "line 1, column 5: this is not UTF-8, or a control character."),
        ("a:\n  - \x9b", "line 2, column 5: this is not UTF-8, or a control character."),
        ('"a\\0": 1', "line 1, column 1: the character U+0000 is not allowed."),
        ("k\u202e: 1\nk\u202e: 2", "line 2, column 1: key 'k\\u202e' is given twice"),
        ("a: 1\r\na: 2", "line 2, column 1: key 'a' is given twice"),
    ],
)
def test_yaml_is_refused_with_the_place(text: str, start: str) -> None:
    (problem, *_) = problems_of(text)
    assert problem.startswith(start)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "line 1, column 1: this is not JSON (Expecting value). Correct it there"),
        ("[]", "the document must be a mapping"),
        ('"a"', "the document must be a mapping"),
        ("null", "the document must be a mapping"),
        ('{"a": 1} {}', "line 1, column 10: this is not JSON (Extra data). Correct it there"),
        ('{"a": 01}', "line 1, column 8: this is not JSON (Expecting ',' delimiter). Correct it there"),
        ('{"a": .5}', "line 1, column 7: this is not JSON (Expecting value). Correct it there"),
        ('{"a": "x\n"}', "line 1, column 9: this is not JSON (Invalid control character at). Correct it there"),
        (
            "{'a': 1}",
            "line 1, column 2: this is not JSON (Expecting property name enclosed in double quotes). Correct it there",
        ),
        ('{"a": 1, "\\u0061": 2}', "line 1, column 1: this is not JSON (the key 'a' is given twice). Correct it there"),
        ('{"a": [{"\\u0007": 1}]}', "a[0].\\x07: the character U+0007 is not allowed."),
        ('{"a": [{"b": NaN}]}', "a[0].b: the number is not finite"),
        ('{"a": [1' + "0" * 30 + "]}", "a[0]: the number is not finite or does not fit into 64 bits."),
    ],
)
def test_json_is_refused_with_the_place(text: str, start: str) -> None:
    (problem,) = problems_of(text, "json")
    assert problem.startswith(start)


def test_exactly_what_yaml_calls_printable_is_taken() -> None:
    refused = [*range(9), 11, 12, *range(14, 32), *range(127, 133), *range(134, 160), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF]
    for character in map(chr, refused):
        assert problems_of(f"a: '{character}'") == (
            "line 1, column 5: this is not UTF-8, or a control character. Remove it.",
        )
        assert f"U+{ord(character):04X}" in problems_of(json.dumps({"a": character}), "json")[0]
    for character in "\t\n\r\x85\xa0\u2028\ufeff\ufffd\U0010ffff":
        assert parse(json.dumps({"a": character}), "json") == {"a": character}


def test_a_key_given_three_times_is_reported_twice() -> None:
    assert [problem.split(".")[0] for problem in problems_of("a: 1\na: 2\n\na: 3")] == [
        "line 2, column 1: key 'a' is given twice",
        "line 4, column 1: key 'a' is given twice",
    ]


def test_a_problem_hides_no_later_one() -> None:
    problems = problems_of("a: .nan\nb: !x 1\na: 2\non: 3\n")
    assert [problem.split(":")[0] for problem in problems] == [
        f"line {n}, column {c}" for n, c in [(1, 4), (2, 4), (3, 1), (4, 1)]
    ]


@pytest.mark.parametrize(
    ("text", "format", "places"),
    [
        ("{" + ",\n".join(f'"k{n // 2}": {n}' for n in range(60)) + "}", "yaml", [f"line {2 * n}, column 1" for n in range(1, 21)]),
        (f'{{"a": [{", ".join(["NaN"] * 30)}]}}', "json", [f"a[{n}]" for n in range(20)]),
    ],
    ids=["yaml", "json"],
)  # fmt: skip
def test_at_most_twenty_problems_are_kept_and_the_others_counted(text: str, format: Format, places: list[str]) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text, format)
    assert isinstance(caught.value, ConfigError)
    assert [problem.message.split(":")[0] for problem in caught.value.problems] == places
    assert caught.value.omitted == 10
    assert str(caught.value).splitlines()[20:] == ["… and 10 more"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "word", ["yes", "No", "on", "OFF", "y", "1:30", "190:20:30", "2024-01-31", "0o17", "017", "1__0"]
)
def test_a_word_that_yaml_1_1_takes_for_something_else_stays_a_text(word: str) -> None:
    assert value_of(word) == word


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_messages_cut_and_escape_what_they_quote(format: Format) -> None:
    key = "\u202e" + "k" * 1000
    for text in (f'{{"{key}": 1, "{key}": 2}}', f'{{"{key}": "\\u0007"}}'):
        with pytest.raises(DocumentError) as caught:
            parse(text, format)
        (line,) = caught.value.lines()
        assert line.isprintable()
        assert len(line) <= 300
    assert "'\\u202ekkk" in problems_of(f'{{"{key}": 1, "{key}": 2}}')[0]


# Limits


@pytest.mark.parametrize(
    ("opening", "closing", "format"), [('{"a":', "}", "json"), ("{a: ", "}", "yaml"), ("a:\n", "", "yaml")]
)
def test_fifty_levels_are_read_and_fifty_one_refused(opening: str, closing: str, format: Format) -> None:
    def nested(depth: int) -> str:
        indented = "".join(" " * level * opening.endswith("\n") + opening for level in range(depth))
        return indented + " " * depth + "1" + closing * depth

    document: Any = parse(nested(50), format)
    for _ in range(50):
        document = document["a"]
    assert document == 1
    (problem,) = problems_of(nested(51), format)
    assert "more than 50 levels of nesting" in problem


def test_fifty_levels_are_counted_through_aliases() -> None:
    inner = "a: &a " + "[" * 20 + "]" * 20 + "\n"
    assert parse(inner + "b: " + "[" * 29 + "*a" + "]" * 29)
    (problem,) = problems_of(inner + "b: " + "[" * 30 + "*a" + "]" * 30)
    assert problem.startswith("line 1, column 26: more than 50 levels of nesting")


@pytest.mark.usefixtures("_each_parser")
@pytest.mark.parametrize("use", ["[*a, *a]", "{<<: *a}", "{<<: [*a]}", "{k: *a}"])
def test_what_aliases_stand_for_is_counted_each_time(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    text = "a: &a {b: [1, 2], c: 3}\nd: "
    # The top level; a, its mapping, b, the list, 1, 2, c, 3; d and what is around the aliases
    nodes = 1 + 8 + 1 + {"[*a, *a]": 1 + 2 * 7, "{<<: *a}": 2 + 7, "{<<: [*a]}": 3 + 7, "{k: *a}": 2 + 7}[use]
    monkeypatch.setattr(documents_contents, "MAX_NODES", nodes)
    assert parse(text + use)
    monkeypatch.setattr(documents_contents, "MAX_NODES", nodes - 1)
    assert "keys and values" in problems_of(text + use)[0]


def test_characters_are_counted_through_aliases() -> None:
    text = "a: &a " + "x" * (MIB // 2 - 3) + "\nb: "
    assert len(parse(text + "[*a, four]")["b"][0]) == MIB // 2 - 3
    assert problems_of(text + "[*a, fives]") == (
        "line 2, column 9: more than 1,048,576 characters in keys and values. Make the document smaller.",
    )


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_nodes_are_counted_with_keys_and_bounded(monkeypatch: pytest.MonkeyPatch, format: Format) -> None:
    assert documents_contents.MAX_NODES == 100_000
    monkeypatch.setattr(documents_contents, "MAX_NODES", 1000)
    fits = '{"a": [' + "1,\n" * (1000 - 4) + "1]}"
    assert len(parse(fits, format)["a"]) == 997
    (problem,) = problems_of(fits.replace("1]", "1,2]"), format)
    place = {"yaml": "line 1, column 7", "json": "a[997]"}[format]
    assert problem.startswith(f"{place}: more than 1,000 keys and values.")


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_a_mebibyte_is_read_and_one_byte_more_refused(tmp_path: Path, format: Format) -> None:
    path = tmp_path / f"config.{format}"
    path.write_text('{"a": "' + "x" * (MIB - 9) + '"}')
    assert len(read_document(path)["a"]) == MIB - 9
    path.write_text('{"a": "' + "x" * (MIB - 8) + '"}')
    with pytest.raises(DocumentError, match=r"is 1,048,577 bytes long, more than the 1,048,576 allowed"):
        read_document(path)
    for text in (path.read_text(), path.read_bytes()):
        assert "has 1,048,577 bytes" in problems_of(text, format)[0]


# Files


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "the file does not exist."),
        (lambda path: path.mkdir(), "is a directory, and a config is a file in YAML or JSON."),
        (os.mkfifo, "is not a regular file."),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file."),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "cannot be opened: "),
        (lambda path: path.symlink_to(path), "the file does not exist."),
    ],
    ids=["missing", "directory", "fifo", "device", "socket", "loop"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_regular_file_is_refused_without_blocking(
    tmp_path: Path, make: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / "config.yaml"
    make(path)
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.message.startswith(sentence)


def test_a_path_with_nul_is_refused() -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        read_document(Path("a\0b.yaml"))


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a: 1")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "real")
    assert read_document(tmp_path / "config.yaml") == {"a": 1}


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    problems = read_within_limits([path])["config"]
    assert problems == ["is 104,857,600 bytes long, more than the 1,048,576 allowed for such a file."]


# Hostile documents of a mebibyte, read by a process that has 200 MB, and 20 seconds for each: seven times what a slow machine needs

_CHILD = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (200_000_000, 200_000_000))
from pathlib import Path
from modelmerger.config.documents.document import DocumentError, read_document
if sys.argv[1] == "python":
    import yaml
    del yaml.CSafeLoader
for name in sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 20, resource.RLIM_INFINITY))
    try:
        read_document(Path(name))
        problems = []
    except DocumentError as error:
        problems = [problem.message for problem in error.problems]
    print(json.dumps([Path(name).stem, problems]), flush=True)
"""


def read_within_limits(paths: list[Path], parser: str = "default", child: str = _CHILD) -> dict[str, Any]:
    """The problems by name; what the process did not live to tell is absent."""
    result = subprocess.run(
        [sys.executable, "-c", child, parser, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(documents.__file__).parents[3])},
    )
    return dict(json.loads(line) for line in result.stdout.splitlines())


def filled(piece: str, before: str = "", after: str = "", size: int = MIB) -> str:
    """`piece` repeated to `size` bytes."""
    count = (size - len((before + after).encode())) // len(piece.encode())
    return before + piece * count + after


def numbered(piece: str, size: int = MIB) -> str:
    text = "".join(piece.format(n) for n in range(size // len(piece.format(0))))
    return text[: size - 1].rpartition("\n")[0] + "\n"


def bomb(mapping: str, before: str = "") -> str:
    """Each of 20 mappings holds the one before nine times."""
    lines = ["a0: &a0 {k: 1}"]
    for n in range(1, 20):
        held = ", ".join(before.format(part) + f"*a{n - 1}" for part in range(9))
        lines.append(f"a{n}: &a{n} {mapping.format(held, n)}")
    return "\n".join(lines)


HOSTILE_YAML: dict[str, Callable[[int], str]] = {
    "flow sequences 100,000 deep": lambda size: "a: " + "[" * min(size - 3, 100_000),
    "flow mappings": lambda size: filled("{", size=size),
    "flow mappings as values": lambda size: filled("{a: ", size=size),
    "block sequences": lambda size: filled("- ", "a:\n  ", size=size),
    "complex keys": lambda size: filled("? ", size=size),
    "indentation": lambda size: numbered("{0}", 0) + "".join(" " * n + "a:\n" for n in range(size // 1000)),
    "short list": lambda size: filled("1,", "a: [", "1]", size=size),
    "short mappings": lambda size: filled("{},", "a: [", "]", size=size),
    "keys": lambda size: numbered("k{}:\n", size),
    "one key again and again": lambda size: filled("ع:\n", size=size),
    "aliases": lambda size: filled("*a,", "a: [", "]", size=size),
    "anchors": lambda size: filled("&a ,", "a: [", "]", size=size),
    "an alias bomb": lambda _: (DATA / "alias_bomb.yaml").read_text(),
    "a bomb of merge keys": lambda _: bomb("{{<<: [{0}], k{1}: 1}}"),
    "a bomb of mappings": lambda _: bomb("{{{0}}}", "k{}: "),
    "aliases of one long text": lambda size: filled("*a,", "a: &a " + "x" * (size // 2) + "\nb: [", "]", size=size),
    "aliases of one long number": lambda size: filled("*a,", "a: &a " + "1" * (size // 2) + "\nb: [", "]", size=size),
    "aliases of a list": lambda size: filled("*a,", "a: &a [" + "1," * (size // 8) + "]\nb: [", "]", size=size),
    "aliases of an empty list": lambda size: filled("*a,", "a: &a []\nb: [", "]", size=size),
    "aliases that are keys": lambda size: filled("*a : ,", "a: &a k\nb: {", "}", size=size),
    "merge keys": lambda size: filled("<<: *a,", "a: &a {k: 1}\nb: {", "}", size=size),
    "merged lists": lambda size: filled("*a,", "a: &a {k: 1}\nb: {<<: [", "]}", size=size),
    "anchors in anchors": lambda size: "a: " + "&a [" * min(size // 10, 10_000),
    "one anchor after another": lambda size: numbered("- &a{0} a\n- *a{0}\n", size).join(("b:\n", "")),
    "tags": lambda size: filled("!a ,", "a: [", "]", size=size),
    "one long tag": lambda size: filled("%41", "a: !<", "> 1", size=size),
    "%TAG directives": lambda size: numbered("%TAG !{:x}! x\n", size),
    "documents": lambda size: filled("---\n", size=size),
    "empty lines": lambda size: filled("\n", "a: 1", size=size),
    "comments": lambda size: filled("#\n", "a: 1\n", size=size),
    "one comment": lambda size: filled("#", "a: 1 ", size=size),
    "words": lambda size: filled("a ", "a: ", size=size),
    "continued lines": lambda size: filled("\n x", "a:", size=size),
    "folded block": lambda size: filled(" x\n", "a: >\n", size=size),
    "escapes": lambda size: filled("\\u0627", 'a: "', '"', size=size),
    "unfinished text": lambda size: filled("\\n", 'a: "', size=size),
    "digits": lambda size: filled("1", "a: ", size=size),
    "hexadecimal digits": lambda size: filled("f", "a: 0x", size=size),
    "decimals": lambda size: filled("1", "a: 0.", size=size),
    "exponent": lambda size: filled("9", "a: 1e", size=size),
    "long key": lambda size: filled("k", "? ", "\n: 1\n", size=size),
    "two long keys": lambda size: "{0}: 1\n{0}: 2\n".format(filled("ع", "'", "'", size // 2 - 6)),
    "colons": lambda size: filled(":", "a: ", size=size),
    "Arabic": lambda size: filled("ع", "a: ", size=size),
    "spaces": lambda size: filled(" ", "a:", "1", size=size),
}
HOSTILE_JSON: dict[str, str] = {
    "lists 90,000 deep": '{"a":' + "[" * 90_000,
    "lists 90,000 deep and closed": '{"a":' + "[" * 90_000 + "]" * 90_000 + "}",
    "as many NaN as fit": '{"a":[' + "NaN," * 99_000 + "1]}",
    "as many equal keys as fit": "{" + '"k":1,\n' * 49_000 + '"":1}',
    "mappings": filled('{"":'),
    "short list": filled("1,", '{"a":[', "1]}"),
    "short lists": filled("[],", '{"a":[', "1]}"),
    "texts": filled('"",', '{"a":[', "1]}"),
    "keys": "{" + numbered('"k{}":1,\n', MIB - 10)[:-2] + "}",
    "one key again and again": filled('"ع":1,', "{", '"":1}'),
    "NaN": filled("NaN,", '{"a":[', "1]}"),
    "digits": filled("1", '{"a":', "}"),
    "exponent": filled("9", '{"a":1e', "}"),
    "escapes": filled("\\u0627", '{"a":"', '"}'),
    "quotes, unfinished": filled('\\"', '{"a":"'),
    "quotes": filled('"'),
    "backslashes": filled("\\", '{"a":'),
    "empty lines": filled("\n", '{"a":1', "}"),
    "lines without end": filled("[]"),
}


BOMBS = ("an alias bomb", "a bomb of merge keys", "a bomb of mappings")
WITHOUT_LIBYAML = (
    *("short list", "short mappings", "tags", "words", "documents", "flow mappings", "comments", *BOMBS),
    *(kind for kind in HOSTILE_YAML if kind.startswith(("alias", "merge", "anchor"))),
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group, suffix, parser, texts in (
        ("yaml", "yaml", "default", {kind: make(MIB) for kind, make in HOSTILE_YAML.items()}),
        ("small", "yaml", "python", {kind: HOSTILE_YAML[kind](16 * 1024) for kind in WITHOUT_LIBYAML}),
        ("json", "json", "default", HOSTILE_JSON),
    ):
        folder = tmp_path_factory.mktemp(group)
        for kind, text in texts.items():
            (folder / f"{kind}.{suffix}").write_text(text, encoding="utf-8", newline="")
        found[group] = read_within_limits([folder / f"{kind}.{suffix}" for kind in texts], parser)
    return found


@pytest.mark.parametrize(
    ("group", "kind"),
    [("yaml", k) for k in HOSTILE_YAML] + [("small", k) for k in WITHOUT_LIBYAML] + [("json", k) for k in HOSTILE_JSON],
)
def test_a_hostile_mebibyte_is_answered_within_seconds_and_200_mb(
    answers: dict[str, Any], group: str, kind: str
) -> None:
    assert kind in answers[group], "the process died of this document, or of one before it"
    problems = answers[group][kind]
    assert len(problems) <= 20
    if kind in BOMBS:
        assert "more than 100,000 keys and values. " in problems[-1]
    assert all(20 < len(problem) <= 300 for problem in problems)


def test_the_limits_of_these_tests_do_stop_a_process(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert read_within_limits([tmp_path / "a.json"])["a"] == []
    for change in ("while True: pass", "bytearray(200_000_000)"):
        child = _CHILD.replace("read_document(Path(name))", change).replace("+ 20", "+ 1")
        assert read_within_limits([tmp_path / "a.json"], child=child) == {}


# Anything at all


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80),
        st.lists(st.sampled_from([*"{}[]:,-?&*!%|>'\"#@` \n\t~01ae.\\", "- ", ": ", "---", "..."])).map("".join),
    ),
    st.sampled_from(["yaml", "json"]),
)
def test_any_text_is_a_document_or_an_error_with_sentences(text: bytes | str, format: Format) -> None:
    try:
        document = parse(text, format)
    except DocumentError as error:
        assert error.problems
        assert all(20 < len(problem.message) <= 300 for problem in error.problems)
    else:
        assert_plain(document)
        assert parse(dump_yaml(document)) == document


def assert_plain(value: object) -> None:
    assert type(value) in (dict, list, str, int, float, bool, type(None))
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for item in value.values():
            assert_plain(item)
    elif isinstance(value, list):
        for item in value:
            assert_plain(item)
    elif isinstance(value, float):
        assert math.isfinite(value)


# Writing

# All that YAML calls printable; Cc holds tab, line feed, carriage return and next line beside the control characters.
_LETTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from(
    "\t\n\r\x85"
)
_PITFALLS = [
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "on",
        "Yes",
        "<<",
        "=",
        "|",
        "-",
        "---",
        "...",
        "? a",
        "- a",
        "a: b",
        "a #b",
        " a ",
    ),
    *("1e5", "1e-8", "+1", "1.", ".5", ".nan", ".inf", "017", "089", "0o17", "0x1F", "1_000", "1:30", "2024-01-31"),
    *("!x", "&a", "*a", "%a", "a\n%b", "a\n\n b\n", "a\r\nb", "\n", "\u2028", "\ufeff", "السلام عليكم", "x" * 200),
]
_TEXTS = st.one_of(
    st.text(_LETTERS),
    st.text(st.sampled_from("abع🙂 \n\t:#-'\"\\{}[],&*!%@`|>?~.0123456789eE+_")),
    st.sampled_from(_PITFALLS),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXTS,
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=15
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_TEXTS, _VALUES, max_size=5))
def test_what_is_written_is_read_back_exactly(data: dict[str, Any]) -> None:
    text = dump_yaml(data)
    # json.dumps tells types, signs of zero and the order of keys apart.
    assert json.dumps(parse(text)) == json.dumps(data)
    assert dump_yaml(data) == text
    assert text.endswith("\n")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_TEXTS, _VALUES, max_size=5))
def test_json_and_yaml_of_the_same_values_are_read_alike(data: dict[str, Any]) -> None:
    for escaped in (True, False):
        assert json.dumps(parse(json.dumps(data, ensure_ascii=escaped, indent=1), "json")) == json.dumps(data)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_TEXTS, _SCALARS, max_size=5))
def test_a_reader_of_yaml_1_1_finds_the_same_texts(data: dict[str, Any]) -> None:
    read = yaml.safe_load(dump_yaml(data))
    assert list(read) == list(data)
    assert [value for value in read.values() if isinstance(value, str)] == [
        v for v in data.values() if isinstance(v, str)
    ]


class _SharingDumper(documents_yaml._Dumper):
    ignore_aliases = yaml.SafeDumper.ignore_aliases


@st.composite
def values_with_shared_parts(draw: st.DrawFn) -> dict[str, Any]:
    parts: list[Any] = [draw(_VALUES)]
    for _ in range(draw(st.integers(0, 5))):
        part = st.sampled_from(parts)
        parts.append(draw(st.lists(part, max_size=3) | st.dictionaries(_TEXTS, part, max_size=3)))
    return {"parts": parts}


def containers_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers_in(item)


@settings(max_examples=100, deadline=None)
@given(values_with_shared_parts())
def test_values_with_shared_parts_that_are_written_as_aliases_are_read_as_values_without(data: dict[str, Any]) -> None:
    found = parse(yaml.dump(data, Dumper=_SharingDumper, sort_keys=False, allow_unicode=True))
    assert json.dumps(found) == json.dumps(data)
    containers = list(containers_in(found))
    assert len(set(map(id, containers))) == len(containers)


def test_written_yaml_is_easy_to_read() -> None:
    data = {
        "strategy": "weighted",
        "models": [{"path": "./نموذج", "weight": 0.4}, {"path": "🙂", "weight": 1e-8}],
        "prompt": "مرحبا\nكيف حالك؟",
        "name": "no",
        "clamp": (-2, 2.0),
        "empty": {},
    }
    assert dump_yaml(data) == (
        "strategy: weighted\nmodels:\n- path: ./نموذج\n  weight: 0.4\n- path: 🙂\n  weight: 1.0e-08\n"
        "prompt: \"مرحبا\\nكيف حالك؟\"\nname: 'no'\nclamp:\n- -2\n- 2.0\nempty: {}\n"
    )


def test_what_other_readers_or_people_could_mistake_is_quoted_or_escaped() -> None:
    assert dump_yaml({"a": "0o17", "b": "017", "c": "1e5"}) == "a: '0o17'\nb: '017'\nc: '1e5'\n"
    assert dump_yaml({"a": "\ufeff\u2028\x85\u2029"}) == 'a: "\\uFEFF\\L\\N\\P"\n'
    assert dump_yaml({"\u202ea": "b\u2066"}) == '"\\u202ea": "b\\u2066"\n'


def test_a_long_text_stays_on_one_line() -> None:
    assert dump_yaml({"a": "كلمة word " * 50 + "."}).count("\n") == 1


def test_a_value_used_twice_is_written_twice_and_not_as_an_alias() -> None:
    shared = [1, 2]
    assert dump_yaml({"a": shared, "b": shared}) == "a:\n- 1\n- 2\nb:\n- 1\n- 2\n"


def test_subclasses_are_written_as_the_plain_type() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Half(float):
        def __repr__(self) -> str:
            return "Half()"

    assert dump_yaml({"colour": Colour.RED, Colour.RED: Half(0.5)}) == "colour: red\nred: 0.5\n"


def loop() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["again"] = [values]
    return values


@pytest.mark.parametrize(
    ("data", "start"),
    [
        ({"models": [{"weight": math.nan}]}, f"models[0].weight: {NUMBER}"),
        ({"a": -math.inf}, f"a: {NUMBER}"),
        ({"a": 2**64}, f"a: {NUMBER}"),
        ({"a": 10**5000}, f"a: {NUMBER}"),
        ({"a": {1: 2}}, "a.1: the key is not a text."),
        ({"a": {1, 2}}, "a: a 'set' is not allowed."),
        ({"a": b"x"}, "a: a 'bytes' is not allowed."),
        ({"a": ["x\0"]}, "a[0]: the character U+0000 is not allowed."),
        ({"a\x1b": 1}, "a\\x1b: the character U+001B is not allowed."),
        ({"a": "\ud800"}, "a: the character U+D800 is not allowed."),
        (loop(), "again[0].again[0].again"),
        ({"a": [0] * 100_000}, "a[99997]: more than 100,000 keys and values."),
    ],
)
def test_what_no_document_may_hold_is_not_written(data: dict[str, Any], start: str) -> None:
    with pytest.raises(DocumentError) as caught:
        dump_yaml(data)
    (problem,) = caught.value.problems
    assert problem.message.startswith(start)
    assert len(problem.message) <= 300


def test_yaml_that_would_be_too_large_to_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    assert len(dump_yaml({"a": "x" * 96})) == 100
    with pytest.raises(DocumentError, match="has 101 bytes, 100 are allowed"):
        dump_yaml({"a": "x" * 97})


def test_reading_json_imports_no_yaml_and_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    child = _CHILD.replace("problems = []", 'problems = sorted({"yaml", "torch", "transformers"} & set(sys.modules))')
    assert read_within_limits([tmp_path / "a.json"], child=child)["a"] == []
    (tmp_path / "b.yaml").write_text("{}")
    assert read_within_limits([tmp_path / "b.yaml"], child=child)["b"] == ["yaml"]
