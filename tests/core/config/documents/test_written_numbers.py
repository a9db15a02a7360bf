"""Numbers that YAML takes for texts, or for something else, are told with how they are written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from modelmerger import ConfigError, MergeConfig, parse_document
from modelmerger.config.documents.written_numbers import number_meant, written_plainly

MEANT = {
    "0,5": "0.5",
    "٠٫٥": "0.5",
    "٠,٥": "0.5",
    "٠،٥": "0.5",
    "٠.٥": "0.5",
    "۰٫۵": "0.5",
    "٤٢": "42",
    "\u200f0.5": "0.5",
    "\u200f٠٫٥\u200e": "0.5",
    "−0.5": "-0.5",
    "-1,5e-3": "-1.5e-3",
    "0.5": "0.5",
    " 0,5 ": "0.5",
    ".5": ".5",
    "50%": "0.5",
    "٥٠٪": "0.5",
    "1/2": "0.5",
    "½": "0.5",
    "3 / 4": "0.75",
    "1/0": None,
    "0.5f": "0.5",
    "1_000": "1000",
    "12'000'000": "12000000",
    "much": None,
    "1,2,3": None,
    "": None,
    "0x10": None,
    "²": None,
    "1" * 50: None,
}


@pytest.mark.parametrize("text", MEANT)
def test_the_number_is_read(text: str) -> None:
    assert number_meant(text) == MEANT[text]


def test_what_to_do_fits_what_is_wrong() -> None:
    assert written_plainly("0.5") == ""
    assert written_plainly("٤٢") == "Write 42, with the digits 0 to 9"
    assert written_plainly("0,5") == "Write 0.5, with a point and the digits 0 to 9"
    assert written_plainly("half") == ""
    assert written_plainly("0.5\u00a0") == "Write 0.5, with a point and the digits 0 to 9"
    assert written_plainly("1/2") == "Write 0.5, with a point and the digits 0 to 9"


@pytest.mark.parametrize("written", ["0,5", "٠٫٥", "۰٫۵", "'٠،٥'"])
def test_a_weight_of_a_block_is_told(
    written: str, models: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    config = models.folder / "merge.yaml"
    config.write_text(f"strategy: weighted\nmodels:\n  - path: {models.a}\n    weight: {written}\n", encoding="utf-8")

    result = command("merge", config, "--output", models.output)

    assert result.status == 2
    (line,) = result.err.splitlines()
    assert "models[0].weight: must be a number" in line
    assert line.endswith(f"Write 0.5, with a point and the digits 0 to 9 ({config}:4)")


@pytest.mark.parametrize(
    "text",
    [
        "models: [{path: ./a, weight: 0,5}]",
        "models: [{weight: 0,5, path: ./a}]",
        "models: [{path: ./a, weight: ٠,٥}]",
        "models: [{path: ./a, weight: {default: 0,5}}]",
    ],
)
def test_a_decimal_comma_in_braces_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a comma begins a new key here\. Write 0\.5, with a point") as error:
        parse_document(text, source="merge.yaml", format="yaml")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("text", ['{"weight": 0,5}', '{"weight": 0,5, "path": "a"}', '{"weight": [0.1, ٠٫٥]}'])
def test_a_number_in_json_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"this is not JSON .*\. Write 0\.5, with a point"):
        parse_document(text, source="merge.json", format="json")


@pytest.mark.parametrize("text", ['{"a": 1,}', '{"a": .5}', '{"a": 01}', '{"a": 1, "b"}', '{"a": yes}'])
def test_other_mistakes_in_json_are_no_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="Correct it there or just before"):
        parse_document(text, source="merge.json", format="json")


@pytest.mark.parametrize("text", ["a: {x: 1, y}", "a: {x: 1, '5'}", "a: {x: '0', 5: 1}"])
def test_other_keys_in_braces_are_no_numbers(text: str) -> None:
    try:
        parse_document(text, source="merge.yaml", format="yaml")
    except ConfigError as error:
        assert "a comma begins" not in str(error)


def test_a_list_of_whole_numbers_stays_a_list(tmp_path: Path) -> None:
    config = {"strategy": "weighted", "models": [{"path": "./a", "weight": [0, 5]}]}
    assert MergeConfig.from_dict(config).models[0]["weight"] == [0, 5]


@pytest.mark.parametrize("value", ["٤٢", "4,2"])
def test_options_are_told_too(value: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.seed: must be a whole number, got .*\. Write 4\.?2, with"):
        MergeConfig(strategy="weighted", models=[{"path": "./a"}], options={"seed": value})
