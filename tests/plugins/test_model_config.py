"""The merged model's config: the donor's, true about dtypes at every level, and unable to make a loader run code."""

import ast
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from conftest import CONFIG, random_tensors, write_model
from modelmerger import InputError, MergeConfig, merge
from modelmerger_plugins.special_floats import MAY_BE_INFINITE
from transformers import PreTrainedConfig


def merged_config(models: SimpleNamespace, config: dict[str, Any], donors: dict[str, Any] | str) -> Any:
    (models.a / "config.json").write_text(donors if isinstance(donors, str) else json.dumps(donors))
    (models.b / "config.json").unlink(missing_ok=True)
    merge(MergeConfig(**config))
    return json.loads((models.output / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ({"dtype": "float32"}, {"dtype": "float16"}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "float16"}),
        ({"torch_dtype": "torch.bfloat16"}, {"torch_dtype": "torch.float16"}),
        ({"torch_dtype": "auto"}, {"torch_dtype": "float16"}),
        ({"dtype": None}, {"dtype": None}),
        ({"text_config": {"torch_dtype": "bfloat16"}}, {"text_config": {"torch_dtype": "float16"}}),
        ({"dtype": "a", "v": {"w": [{"dtype": "b"}]}}, {"dtype": "float16", "v": {"w": [{"dtype": "float16"}]}}),
        ({"hidden_size": 16}, {"hidden_size": 16}),
    ],
    ids=str,
)
def test_the_dtype_is_made_true_at_every_level_in_the_donors_spelling(
    models: SimpleNamespace, config: dict[str, Any], spelled: dict[str, Any], expected: dict[str, Any]
) -> None:
    config["options"] = {"torch_dtype": "float16"}

    assert merged_config(models, config, spelled) == expected


def test_without_the_option_the_dtype_is_that_of_most_weights(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in ("a", "b"):
        tensors = {**models.tensors[name], "model.norm.weight": torch.ones(16, dtype=torch.float32)}
        write_model(getattr(models, name), tensors, CONFIG)

    assert merged_config(models, config, {"dtype": "float32"}) == {"dtype": "bfloat16"}


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    ("donors", "expected"),
    [
        ({"vocab_size": 20}, {"vocab_size": 24}),
        ({"vocab_size": 24}, {"vocab_size": 24}),
        (
            {
                "vocab_size": 20,
                "text_config": {"vocab_size": 20, "hidden_size": 16},
                "vision_config": {"vocab_size": 9},
            },
            {
                "vocab_size": 24,
                "text_config": {"vocab_size": 24, "hidden_size": 16},
                "vision_config": {"vocab_size": 9},
            },
        ),
        ({"text_config": {"vocab_size": 20}}, {"text_config": {"vocab_size": 24}}),
        ({"decoder": {"vocab_size": 20}}, {"decoder": {"vocab_size": 20}}),
        ({"vocab_size": None}, {"vocab_size": None}),
    ],
    ids=str,
)
def test_the_vocabulary_size_is_made_true_at_every_level_of_the_language_model(
    models: SimpleNamespace, config: dict[str, Any], donors: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged_config(models, config, donors) == expected


@pytest.mark.parametrize(
    ("rows", "donors", "expected"),
    [
        ({EMBEDDING: 32, HEAD: 24}, {"vocab_size": 24}, {"vocab_size": 24}),  # a class with rows of its own
        ({EMBEDDING: 32, HEAD: 24}, {"vocab_size": 20}, {"vocab_size": 20}),  # nobody knows
        ({HEAD: 32}, {"vocab_size": 20}, {"vocab_size": 32}),
        (
            {"encoder.embeddings.word_embeddings.weight": 20, "decoder.bert.embeddings.word_embeddings.weight": 30},
            {"encoder": {"vocab_size": 21}, "decoder": {"vocab_size": 31}},
            {"encoder": {"vocab_size": 20}, "decoder": {"vocab_size": 30}},
        ),
        (
            {"model.language_model.embed_tokens.weight": 24, "model.qformer.embeddings.word_embeddings.weight": 30},
            {"text_config": {"vocab_size": 20}, "qformer_config": {"vocab_size": 30}},
            {"text_config": {"vocab_size": 24}, "qformer_config": {"vocab_size": 30}},
        ),
        (
            {"model.embed_tokens.weight": 24, "model.qformer.embeddings.word_embeddings.weight": 30},
            {"text_config": {"vocab_size": 20}, "qformer_config": {"vocab_size": 30}},
            {"text_config": {"vocab_size": 24}, "qformer_config": {"vocab_size": 30}},
        ),
        (
            {"text_encoder.shared.weight": 30, "decoder.lm_heads.0.weight": 24},
            {"text_encoder": {"vocab_size": 30}, "decoder": {"vocab_size": 23}},
            {"text_encoder": {"vocab_size": 30}, "decoder": {"vocab_size": 23}},
        ),
        ({"norm.weight": 7}, {"vocab_size": 20}, {"vocab_size": 20}),
    ],
    ids=str,
)
def test_only_matrices_of_the_level_say_how_large_its_vocabulary_is(
    models: SimpleNamespace,
    config: dict[str, Any],
    rows: dict[str, int],
    donors: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    for name in ("a", "b"):
        write_model(getattr(models, name), {tensor: torch.ones(count, 4) for tensor, count in rows.items()}, None)

    assert merged_config(models, config, donors) == expected


QLORA = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_a_quantisation_that_no_weight_has_is_left_out_and_noted(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    donors = {**CONFIG, "quantization_config": QLORA, "text_config": {"quantization_config": QLORA, "a": 1}}

    assert merged_config(models, config, donors) == {**CONFIG, "text_config": {"a": 1}}
    notes = json.loads((models.output / "modelmerger.json").read_text())["notes"]
    assert [note["severity"] for note in notes if "quantization_config is left out" in note["message"]] == ["note"]


@pytest.mark.parametrize(
    ("method", "tensors"),
    [
        ("bitnet", {}),  # plain floats that are quantised as they are loaded
        ("bitsandbytes", {"q.weight": torch.ones(8, 1, dtype=torch.uint8)}),
        ("gptq", {"q.qweight": torch.ones(2, 3, dtype=torch.int32)}),
        ("fp8", {"q.weight": torch.ones(2, 3).to(torch.float8_e4m3fn)}),
        ("compressed-tensors", {"q.weight_scale": torch.ones(1)}),
    ],
)
def test_a_quantisation_that_weights_have_stays(
    models: SimpleNamespace, config: dict[str, Any], method: str, tensors: dict[str, torch.Tensor]
) -> None:
    donors = {**CONFIG, "quantization_config": {"quant_method": method}}
    for name in ("a", "b"):
        write_model(getattr(models, name), models.tensors[name] | tensors)

    assert merged_config(models, config, donors) == donors


def test_everything_else_is_the_donors_in_its_order(models: SimpleNamespace, config: dict[str, Any]) -> None:
    donors = {"z": [1, 2.5, None, True, "نص"], "a": {"y": {}, "b": []}, "architectures": ["Unknown"]}

    written = merged_config(models, config, donors)

    assert list(written) == list(donors)
    assert written == donors


def test_the_base_model_is_the_donor_when_it_is_given(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in ("a", "b", "base"):
        (getattr(models, name) / "config.json").write_text(json.dumps({"from": name}))
        (getattr(models, name) / "generation_config.json").write_text(json.dumps({"from": name}))
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}

    merge(MergeConfig(**config))

    for file in ("config.json", "generation_config.json"):
        assert json.loads((models.output / file).read_text()) == {"from": "base"}


@pytest.mark.parametrize("content", [b'{"eos_token_id": 2}', b'{ "a" :1}\r\n', b"\xef\xbb\xbf{}"])
def test_a_generation_config_is_copied_byte_for_byte(
    models: SimpleNamespace, config: dict[str, Any], content: bytes
) -> None:
    (models.a / "generation_config.json").write_bytes(content)

    merge(MergeConfig(**config))

    assert (models.output / "generation_config.json").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{ malformed", "is not sound JSON"),
        (b"\xff\xfe\0", "is not sound JSON"),
        (b"", "is not sound JSON"),
        (b"[]", "is not a JSON object"),
        (b"NaN", "NaN (line 1) is no number in JSON"),
        (b'{"temperature": 1e999}', "1e999 (line 1, key temperature) is beyond what a float64 can hold"),
        (b'{"length_penalty": Infinity}', "Infinity (line 1, key length_penalty) is no number in JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_a_generation_config_that_is_none_is_refused(
    models: SimpleNamespace, config: dict[str, Any], content: bytes, words: str
) -> None:
    (models.a / "generation_config.json").write_bytes(content)

    with pytest.raises(InputError) as refusal:
        merge(MergeConfig(**config))

    (problem,) = refusal.value.problems
    assert words in problem.message
    assert problem.where == str(models.a / "generation_config.json")
    assert not models.output.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("1e999", "beyond"), ("[{}, -1e400]", "beyond"), ("[0.0, NaN]", "no number"), ("-Infinity", "no number")],
)
def test_a_config_with_nan_or_numbers_beyond_any_float_is_refused(
    models: SimpleNamespace, config: dict[str, Any], content: str, words: str
) -> None:
    """B23"""
    (models.b / "config.json").write_text(f'{{"model_type": "llama", \n"a": {content}}}')

    with pytest.raises(InputError, match=rf"b/config\.json: is not sound JSON: .* \(line 2, key a\) .*{words}"):
        merge(MergeConfig(**config))


NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf}


def numbers(config: Any) -> Any:
    """What transformers reads where `json` reads this."""
    return PreTrainedConfig._decode_special_floats(config)


def limits(spelled: str) -> str:
    return (
        json.dumps({**CONFIG, "time_step_limit": [0.0, 7], "inner": {"time_step_limit": 8}})
        .replace("7", spelled)
        .replace("8", spelled)
    )


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("ours", ["{}", '{{"__float__": "{}"}}'])
@pytest.mark.parametrize("theirs", ["{}", '{{"__float__": "{}"}}'])
def test_infinity_in_a_config_is_kept_as_transformers_writes_them(
    models: SimpleNamespace, config: dict[str, Any], name: str, ours: str, theirs: str
) -> None:
    """B23. Mamba-2 models say `"time_step_limit": [0.0, Infinity]`."""
    (models.a / "config.json").write_text(limits(ours.format(name)))
    (models.b / "config.json").write_text(limits(theirs.format(name)))

    report = merge(MergeConfig(**config))

    assert [note for note in report.notes if "time_step_limit" in note.message] == []
    told = json.loads((models.output / "config.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [told["time_step_limit"][1], told["inner"]["time_step_limit"]] == [{"__float__": name}] * 2
    assert repr(numbers(told)["time_step_limit"]) == repr([0.0, NUMBERS[name]])


@pytest.mark.parametrize(("ours", "theirs"), [("Infinity", "1.5"), ("1.5", "-Infinity"), ("Infinity", "-Infinity")])
def test_an_infinity_in_one_config_alone_is_a_difference(
    models: SimpleNamespace, config: dict[str, Any], ours: str, theirs: str
) -> None:
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "time_step_limit": NUMBERS.get(ours, 1.5)}))
    (models.b / "config.json").write_text(json.dumps({**CONFIG, "time_step_limit": NUMBERS.get(theirs, 1.5)}))

    report = merge(MergeConfig(**config))

    here, there = NUMBERS.get(theirs, 1.5), NUMBERS.get(ours, 1.5)
    assert [note.message for note in report.notes if note.severity == "warning"] == [
        f"time_step_limit is {here} here and {there} in 'a', whose config is taken."
    ]


def test_an_object_for_an_infinity_may_stand_anywhere(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "limit": {"__float__": "-Infinity"}}))

    merge(MergeConfig(**config))

    assert json.loads((models.output / "config.json").read_bytes())["limit"] == {"__float__": "-Infinity"}


def test_the_keys_that_may_be_infinite_are_those_of_the_classes_of_transformers() -> None:
    """Fields of config classes whose default holds an infinity; read as text, as importing them all takes minutes."""
    folder = Path(transformers.__file__).parent
    found = set()
    for path in (*folder.rglob("configuration_*.py"), folder / "configuration_utils.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"""\(["'][-+]?inf|\b(math|np|torch)\.inf\b""", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.AnnAssign) and node.value and re.search(r"\binf\b", ast.unparse(node.value)):
                found.add(ast.unparse(node.target))
    assert found - {"_FLOAT_TAG_VALUES"} == MAY_BE_INFINITE


def test_a_donor_without_config_gives_none(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "config.json").unlink()
    (models.b / "generation_config.json").write_text("{}")

    merge(MergeConfig(**config))

    assert not (models.output / "config.json").exists()
    assert not (models.output / "generation_config.json").exists()


def test_what_differs_in_meaning_is_a_warning(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "rope_theta": 10000.0, "rope_scaling": None}))
    (models.b / "config.json").write_text(json.dumps({**CONFIG, "rope_theta": 500000.0, "rope_scaling": None}))

    report = merge(MergeConfig(**config))

    assert [note.message for note in report.notes if note.severity == "warning"] == [
        "rope_theta is 500000.0 here and 10000.0 in 'a', whose config is taken."
    ]


def test_a_quantised_name_of_a_dtype_is_kept_where_no_weight_is_floating(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    for name in ("a", "b"):
        write_model(getattr(models, name), {"t": torch.arange(4)})

    assert merged_config(models, config, {"dtype": "float16"}) == {"dtype": "float16"}


def test_the_dtype_of_random_tensors_in_float32_is_written(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for seed, name in enumerate(("a", "b")):
        write_model(getattr(models, name), random_tensors(seed, torch.float32))

    assert merged_config(models, config, CONFIG)["torch_dtype"] == "float32"


def test_what_to_do_about_code_of_the_model_is_said_once(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in ("a", "b"):
        code = {**CONFIG, "auto_map": {"AutoConfig": "configuration_x.X"}}
        (getattr(models, name) / "config.json").write_text(json.dumps(code))

    (warning,) = [note for note in merge(MergeConfig(**config)).notes if note.severity == "warning"]

    assert warning.where == str(models.a / "config.json")
    assert warning.message.endswith(
        "Copy configuration_*.py and modeling_*.py of the donor into the output and put auto_map back, if you trust them."
    )
    assert len(str(warning)) <= 300


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("odd", [{"vocab_size": []}, {"vocab_size": {"a": 1}}, {"model_type": "x" * 5000}], ids=str)
def test_odd_values_in_a_config_are_no_bug_of_a_plugin(
    models: SimpleNamespace, config: dict[str, Any], who: str, odd: dict[str, Any]
) -> None:
    (getattr(models, who) / "config.json").write_text(
        json.dumps({**CONFIG, "architectures": ["LlamaForCausalLM"], **odd})
    )
    try:
        merge(MergeConfig(**config))
    except InputError as error:
        assert "cannot be handled" not in str(error)


def test_who_chose_an_implementation_is_no_code(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """As transformers 4 wrote it into many configs; it is left out without a word."""
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "_attn_implementation_autoset": True}))

    report = merge(MergeConfig(**config))

    assert not [note for note in report.notes if note.severity == "warning"]
    assert "_attn_implementation_autoset" not in json.loads((models.output / "config.json").read_text())
