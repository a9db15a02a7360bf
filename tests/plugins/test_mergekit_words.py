"""Whoever comes from mergekit is told what its words are called here: one line for a whole config, one for a word."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, parse_document
from modelmerger_plugins.mergekit_words.flags import FLAGS, answer_to

MODELS = [{"path": "./a"}, {"path": "./b"}]
SOUP = """\
models:
  - model: ./a
    parameters:
      weight: 0.5
  - model: ./b
    parameters:
      weight: 0.5
merge_method: linear
parameters:
  normalize: true
dtype: bfloat16
"""
STACK = """\
slices:
  - sources:
      - {model: ./a, layer_range: [0, 16]}
  - sources:
      - {model: ./b, layer_range: [8, 24]}
merge_method: passthrough
dtype: bfloat16
"""


def refused(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        MergeConfig.from_dict(config)
    return error.value.lines()


def test_a_whole_config_is_one_line() -> None:
    assert refused(parse_document(SOUP, source="", format="yaml")) == [
        (
            "config: this is a config of mergekit, which is read from a file as it is; here: merge_method: linear is strategy: weighted; "
            "model is path, in models; weight stands beside path; normalize is options.normalize_weights; "
            "dtype is options.torch_dtype; output_path says where the model goes."
        )
    ]


def test_what_was_said_makes_it_a_config_of_ours() -> None:
    told = parse_document(SOUP, source="", format="yaml")
    assert set(told) == {"models", "merge_method", "parameters", "dtype"}
    MergeConfig(
        strategy="weighted",
        models=[{"path": model["model"], "weight": model["parameters"]["weight"]} for model in told["models"]],
        options={"normalize_weights": told["parameters"]["normalize"], "torch_dtype": told["dtype"]},
        output_path="./out",
    )


def test_what_has_no_counterpart_is_said() -> None:
    (line,) = refused(parse_document(STACK, source="", format="yaml"))

    assert "merge_method: passthrough is strategy: passthrough" in line
    assert "slices are models[i].layers, of strategy: stack" in line
    assert len(line) <= 291


STRATEGIES = {
    "linear": "which is mergekit's word. Write strategy: weighted",
    "weightd": "did you mean 'weighted'?",
}


@pytest.mark.parametrize("word", STRATEGIES)
def test_a_method_is_told(word: str) -> None:
    (line,) = refused({"strategy": word, "models": MODELS})

    assert line.startswith(f"no strategy is named '{word}'")
    assert STRATEGIES[word] in line


OPTIONS = {
    "t": "Write interpolation_factor, in options",
    "lambda": "Write scaling_factor, in options",
    "normalize": "Write normalize_weights, in options",
    "dtype": "Write torch_dtype, in options",
    "int8_mask": "Leave it out",
}


@pytest.mark.parametrize("word", OPTIONS)
@pytest.mark.parametrize("place", ["options", "config"])
def test_an_option_is_told(word: str, place: str) -> None:
    given = {word: 0.5}
    (line,) = refused({"strategy": "slerp", "models": MODELS, **({"options": given} if place == "options" else given)})

    assert line.startswith(f"{place}: unknown key '{word}'")
    assert line.endswith(OPTIONS[word])


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("half", "float16"),
        ("float", "float32"),
        ("torch.bfloat16", "bfloat16"),
    ],
)
def test_a_dtype_is_told(word: str, name: str) -> None:
    (line,) = refused({"strategy": "weighted", "models": MODELS, "options": {"torch_dtype": word}})

    assert line.endswith(f"got '{word}'. Write {name}")


def test_another_dtype_is_refused_as_ever() -> None:
    (line,) = refused({"strategy": "weighted", "models": MODELS, "options": {"torch_dtype": "int8"}})

    assert line.endswith("got 'int8'")


def test_a_key_of_every_model_is_told_once() -> None:
    models = [{"model": f"./{name}", "parameters": {"weight": 0.5}} for name in "ab"]

    assert refused({"strategy": "weighted", "models": models}) == [
        "models[0]: unknown key 'model', which is mergekit's word. Write path",
        "models[0]: unknown key 'parameters', which is mergekit's word for what stands in no mapping of its own here: weight stands beside path",
    ]


def test_other_mistakes_are_left_alone() -> None:
    assert refused({"strategy": "weighted", "models": [{"paht": "./a"}], "seed": 1}) == [
        "config: 'seed' is an option. Write it under options",
        "models[0]: unknown key 'paht', did you mean 'path'?",
        "models[0]: the key 'path' is missing",
    ]


def test_a_key_of_the_top_level_among_the_options_is_told() -> None:
    (line,) = refused({"strategy": "weighted", "models": MODELS, "options": {"output_path": "./out"}})

    assert line == "options: unknown key 'output_path' in here. It stands by itself, outside of options"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--copy-tokenizer"], "--copy-tokenizer is mergekit's. Here the tokenizer goes along unless"),
        (["--no-write-model-card"], "--no-write-model-card is mergekit's, and not needed here"),
        (["--random-seed=7"], "--random-seed is mergekit's. Here options.seed."),
        (["--max-rank", "32"], "--max-rank is of mergekit-extract-lora."),
        (["--max-fevals", "9"], "--max-fevals is of mergekit-evolve. Here modelmerger tune"),
        (["--i-understand-this-is-not-useful-without-training"], "is of mergekit-moe"),
    ],
)
def test_flags_of_mergekit_are_answered(
    arguments: list[str], said: str, command: Callable[..., SimpleNamespace]
) -> None:
    result = command("merge", "recipe.yml", *arguments)
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert said in line
    assert line.endswith("See modelmerger merge --help")


def test_other_options_are_unknown_as_before(command: Callable[..., SimpleNamespace]) -> None:
    assert "No such option" in command("merge", "recipe.yml", "--overwrit").err


def test_every_flag_of_the_documentation_has_an_answer_that_fits_a_line() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/come-from-mergekit.md").read_text()
    table = page.partition("\n## mergekit's flags\n")[2]
    flags = re.findall(r"`(--[a-z-]+)[^`]*`(?=[^|]*\|[^|]*\|$)", table, re.MULTILINE)
    assert len(flags) > 25
    assert [flag for flag in flags if answer_to(flag) is None] == []
    assert max(len(said) + 2 + len(flag) for flag, said in FLAGS.items()) < 240
    assert answer_to("-v") is None
