"""Text for people: hostile names cannot move the cursor, long ones keep both ends, sizes and counts read well."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmerger.values.text import amount, shown, size, suggestion


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("نموذج اللهجات", "نموذج اللهجات"),
        ("a\nerror: forged", "a\\nerror: forged"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("nul\0", "nul\\x00"),
        ("lone \ud800", "lone \\ud800"),
        ("no-break\u00a0space", "no-break\\xa0space"),
    ],
)
def test_invisible_characters_are_escaped_and_visible_ones_kept(name: str, safe: str) -> None:
    assert shown(name) == safe


def test_long_text_is_shortened_in_the_middle() -> None:
    assert shown("abcdefghij", 5) == "ab…ij"
    assert shown("abcde", 5) == "abcde"


@given(st.text(), st.integers(3, 200))
def test_whatever_is_shown_is_one_visible_line_within_the_limit(text: str, limit: int) -> None:
    line = shown(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (3 << 20, "3.0 MiB"),
        (1536 << 20, "1.5 GiB"),
        (1 << 61, "2048.0 PiB"),
    ],
)
def test_sizes_are_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text


def test_counts_agree_with_their_noun() -> None:
    assert [amount(n, "tensor") for n in (0, 1, 2, 1234)] == ["0 tensors", "1 tensor", "2 tensors", "1,234 tensors"]
    assert amount(2, "infinity", "infinities") == "2 infinities"
    assert amount(1, "infinity", "infinities") == "1 infinity"


def test_a_near_miss_gets_a_suggestion_and_a_far_one_none() -> None:
    assert suggestion("wieght", ["weight", "name"]) == ", did you mean 'weight'?"
    assert suggestion("temperature", ["weight", "name"]) == ""
    assert suggestion("x", []) == ""
