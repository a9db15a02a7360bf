"""Where in a file stands what a problem of a config is about."""

import pytest
from modelmerger.config.documents.positions import line_of
from modelmerger.values.errors import Problem

TEXT = """\
strategy: slrp
models:
  - path: ./a
  - path: ./b
    weight: {"*.mlp.*": high, default: 1}
    wieght: 1
options:
  a.b: 1
  a:
    b[0]: 2
"""


@pytest.mark.parametrize(
    ("where", "message", "line"),
    [
        ("models", "must be a list", 2),
        ("models[1]", "unknown key 'wieght', did you mean 'weight'?", 6),
        ("models[1]", "the key 'name' is missing", 4),
        ("models[1].weight.*.mlp.*", "must be a number", 5),
        ("options.a.b", "keys may hold dots", 8),
        ("options.a.b[0]", "and brackets", 10),
        ("", "no strategy is named 'slrp'; did you mean 'slerp'?", 1),
        ("models[2].path", "there is no such entry", None),
        ("models[1]", "unknown key 'given_elsewhere'", None),
        ("options.c", "is missing", None),
        ("", "is about nothing that stands there", None),
        ("./a/config.json", "is another file", None),
    ],
)
def test_the_line_of_a_problem(where: str, message: str, line: int | None) -> None:
    assert line_of(Problem(message, where), TEXT) == line


def test_json_and_aliases() -> None:
    assert line_of(Problem("must be a number", "models[0].weight"), '{"models": [\n{"weight":\n "x"}]}') == 2
    assert line_of(Problem("must be a number", "a.b"), '{\n\t"a":\n\t\t{"b": 1}}') == 3
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{d}, *{d}, *{d}]\n" for c, d in zip("bcdefghijk", "abcdefghij", strict=True)
    )
    assert line_of(Problem("'nowhere'"), bomb) is None
    assert line_of(Problem("must be a number", "a"), "a: [") is None
