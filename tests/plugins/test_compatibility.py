"""Models held against their configs, their tokenizers and each other."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CONFIG, write_model
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, Problem


def write(models: SimpleNamespace, **sizes: int) -> None:
    for name, size in sizes.items():
        say(getattr(models, name), hidden_size=size)


def say(directory: Path, **told: Any) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, **told}))


def said(config: dict[str, Any]) -> list[Problem]:
    """Whatever `check` says but for files that are not there."""
    try:
        found = ModelMerger(MergeConfig(**config)).check_compatibility()
    except ModelCompatibilityError as refusal:
        found = list(refusal.problems)
    return [problem for problem in found if "no tokenizer files" not in problem.message]


def test_every_model_is_compared_with_the_donor_alone(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=24, b=25, base=25)
    config["models"].append({"path": str(models.base)})

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [problem.where for problem in refusal.value.problems] == [
        f"{p}/config.json" for p in (models.b, models.base)
    ]
    assert {problem.message for problem in refusal.value.problems} == {
        "hidden_size is 25 here and 24 in 'a'. Merge models of one architecture."
    }


@pytest.mark.parametrize("missing", ["donor", "union"])
def test_another_number_of_layers_is_a_warning_where_tensors_may_be_missing(
    models: SimpleNamespace, config: dict[str, Any], missing: str
) -> None:
    for name, layers in (("a", 2), ("b", 3)):
        (getattr(models, name) / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    with pytest.raises(ModelCompatibilityError, match="num_hidden_layers is 3 here and 2 in 'a'"):
        ModelMerger(MergeConfig(**config)).check_compatibility()
    config["options"] = {"missing_tensors": missing}

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert any(n.severity == "warning" and "num_hidden_layers is 3 here" in n.message for n in notes)


def test_the_base_model_is_what_the_others_are_compared_with(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=25, b=25, base=24)
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [problem.where for problem in refusal.value.problems] == [f"{p}/config.json" for p in (models.a, models.b)]


def test_models_without_config_are_not_compared(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=25)
    (models.b / "config.json").unlink()

    assert ModelMerger(MergeConfig(**config)).check_compatibility()


def test_a_key_that_one_config_lacks_is_no_difference(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.b / "config.json").write_text(json.dumps({"model_type": "llama", "rope_theta": 1.0}))

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [note.severity for note in notes] == ["note"]


ROPES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, ""),
    (
        {"rope_theta": 1e4, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        "rope_theta is 1000000.0 here and 10000.0 in 'a', whose config is taken.",
    ),
    (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
        "rope_scaling.rope_type is 'default' here and 'linear' in 'a', whose config is taken.",
    ),
    (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 8.0}},
        "rope_scaling.factor is 8.0 here and 4.0 in 'a', whose config is taken.",
    ),
    (
        {"rope_theta": 1e4, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        {
            "rope_parameters": {
                "rope_theta": 1e4,
                "rope_type": "yarn",
                "factor": 4,
                "original_max_position_embeddings": 8,
            }
        },
        "",
    ),
    (
        {},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        "rope_scaling.rope_type is 'yarn' here and 'default' in 'a'",
    ),
    ({}, {"rope_theta": 1e6}, ""),
    ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3]}}, {"rope_parameters": {"mrope_section": [2, 3]}}, ""),
    (
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            }
        },
        "",
    ),
    (
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        {"rope_parameters": {"sliding_attention": {"rope_theta": 2e4}, "full_attention": {"rope_theta": 1e6}}},
        "rope_theta (sliding_attention) is 20000.0 here and 10000.0 in 'a', whose config is taken.",
    ),
    (
        {"rotary_pct": 0.25, "rotary_emb_base": 10000},
        {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 1e4}},
        "",
    ),
]


@pytest.mark.parametrize(("ours", "theirs", "expected"), ROPES, ids=str)
def test_rotary_positions_are_compared_however_they_are_spelled(
    models: SimpleNamespace, config: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], expected: str
) -> None:
    say(models.a, **ours)
    say(models.b, **theirs)

    found = said(config)

    assert [problem.severity for problem in found] == (["warning"] if expected else [])
    assert all(problem.message.startswith(expected) for problem in found)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"torch_dtype": "bfloat16"}, {"torch_dtype": "float32", "dtype": "float16"}),
        ({"use_cache": True, "transformers_version": "4.30"}, {"use_cache": False, "transformers_version": "5.23.0"}),
        ({"_name_or_path": "x", "attention_dropout": 0.0}, {"_name_or_path": "y", "attention_dropout": 0.1}),
        ({"temperature": 1.0, "router_aux_loss_coef": 0.1}, {"temperature": 0.6, "router_aux_loss_coef": 0.2}),
        ({"use_sliding_window": False, "sliding_window": 8}, {"use_sliding_window": False, "sliding_window": None}),
        ({"head_dim": None, "num_key_value_heads": None, "num_attention_heads": 4}, {"head_dim": 4, "num_key_value_heads": 4}),
        ({"pad_token_id": None}, {}),
        ({"sliding_window": None, "rms_norm_eps": 1}, {"sliding_window": 0, "rms_norm_eps": 1.0}),
        ({"num_attention_heads": 4}, {"text_config": {"num_attention_heads": 4, "model_type": "llama_text"}}),
        ({"vision_config": {"model_type": "qwen2_vl"}}, {"vision_config": {"model_type": "qwen2_vl_vision"}}),
        ({"model_type": "lfm2-vl"}, {"model_type": "lfm2_vl"}),
        ({"attention_bias": False}, {"mlp_bias": False}),
        ({"reference_compile": None, "bf16": True, "ep_size": 1}, {"reference_compile": True, "bf16": False, "ep_size": 8}),
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_nothing_is_no_difference(
    models: SimpleNamespace, config: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    say(models.a, **ours)
    say(models.b, **theirs)

    assert said(config) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "key"),
    [
        ({"num_attention_heads": 4}, {"num_attention_heads": 2}, "num_attention_heads"),
        ({"num_key_value_heads": 4}, {"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"head_dim": 8}, {"head_dim": 16}, "head_dim"),
        ({"n_head": 8}, {"n_head": 16}, "n_head"),
        ({"encoder_attention_heads": 4}, {"encoder_attention_heads": 2}, "encoder_attention_heads"),
        ({"d_kv": 8, "num_heads": 4}, {"d_kv": 16, "num_heads": 4}, "d_kv"),
        ({"text_config": {"num_heads": 4}}, {"text_config": {"num_heads": 2}}, "text_config.num_heads"),
        ({"num_attention_heads": 4}, {"text_config": {"num_attention_heads": 2}}, "num_attention_heads"),
        ({"vision_config": {"hidden_size": 4}}, {"vision_config": {"hidden_size": 2}}, "vision_config.hidden_size"),
        ({"model_type": "qwen2"}, {"model_type": "qwen2_moe"}, "model_type"),
    ],
    ids=str,
)
def test_what_makes_another_forward_pass_is_an_error(
    models: SimpleNamespace, config: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], key: str
) -> None:
    say(models.a, **ours)
    say(models.b, **theirs)

    (problem,) = said(config)

    assert problem.severity == "error"
    assert problem.message.startswith(f"{key} is ")
    assert problem.message.endswith(" in 'a'. Merge models of one architecture.")


def test_all_that_differs_otherwise_is_one_warning(models: SimpleNamespace, config: dict[str, Any]) -> None:
    ours: dict[str, Any] = {
        "hidden_act": "silu",
        "sliding_window": None,
        "final_logit_softcapping": 30.0,
        "embedding_multiplier": 12.0,
        "num_experts_per_tok": 2,
        "image_token_id": 2,
        "text_config": {"attention_multiplier": 0.5},
    }
    theirs: dict[str, Any] = {
        "hidden_act": "gelu",
        "sliding_window": 32,
        "final_logit_softcapping": None,
        "embedding_multiplier": 6.0,
        "num_experts_per_tok": 4,
        "image_token_id": 3,
        "text_config": {"attention_multiplier": 0.25},
    }
    say(models.a, **ours)
    say(models.b, **theirs)

    (problem,) = said(config)

    assert problem.severity == "warning"
    assert problem.message.startswith("hidden_act is 'gelu' here and 'silu' in 'a', sliding_window 32 and None")
    assert all(key in problem.message for key in [*list(ours)[:-1], "text_config.attention_multiplier"])
    for key, value in ours.items():
        say(models.a, **{key: value})
        say(models.b, **{key: theirs[key]})
        assert [problem.severity for problem in said(config)] == ["warning"], key


@pytest.mark.parametrize("level", [None, "text_config"])
def test_layers_of_two_kinds_are_no_partners(
    models: SimpleNamespace, config: dict[str, Any], level: str | None
) -> None:
    ours = {"layer_types": ["full_attention", "full_attention", "mamba"]}
    theirs = {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    say(models.a, **(ours if level is None else {level: ours}))
    say(models.b, **(theirs if level is None else {level: theirs}))

    (problem,) = said(config)

    assert problem.severity == "error"
    assert problem.message == (
        "layer 1 is a 'sliding_attention' here and a 'full_attention' in 'a', and 1 more (layer_types). Layers of two "
        "kinds cannot be merged with each other: take others in models[i].layers."
    )


@pytest.mark.parametrize("kept", [0, 1], ids=["flat", "without rows"])
def test_empty_weights_are_one_problem_that_names_what_leaves_them(
    models: SimpleNamespace, config: dict[str, Any], kept: int
) -> None:
    def emptied(name: str) -> None:
        tensors = models.tensors[name].items()
        write_model(
            getattr(models, name), {n: t if t.dim() < 2 else t.new_empty(0, *t.shape[1:][:kept]) for n, t in tensors}
        )
        with_tokenizer(getattr(models, name), 12)

    emptied("b")
    (one,) = said(config)
    emptied("a")
    (both,) = said(config)

    for problem, place in ((one, models.b), (both, models.a)):
        assert problem.severity == "error"
        assert problem.where == str(place)
        assert re.search(r"4 of 7 tensors are empty \(shape \[0(, 16)?\]\), as DeepSpeed ZeRO-3", problem.message)
        assert "zero_to_fp32.py" in problem.message
    assert "likewise in 'b'" in both.message


def test_rows_of_numbers_that_fsdp_keeps_are_one_problem(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in "ab":
        parts = {
            f"_fsdp_wrapped_module.model.layers.{i}._fsdp_wrapped_module._flat_param": torch.ones(9) for i in (0, 1)
        }
        write_model(getattr(models, name), parts)
        with_tokenizer(getattr(models, name), 12)

    (problem,) = said(config)

    assert (problem.severity, problem.where, problem.tensor) == ("error", str(models.a), "model.layers.0._flat_param")
    assert "end to end, as FSDP keeps them, likewise in 'b'. Save the model with FULL_STATE_DICT" in problem.message


def test_weights_before_pruning_are_one_problem(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in "ab":
        kept = {n: t for n, t in models.tensors[name].items() if "mlp" not in n}
        pruned = {
            f"model.layers.{i}.mlp.weight_{part}": torch.ones(4, 4) for i in range(2) for part in ("orig", "mask")
        }
        write_model(getattr(models, name), kept | pruned)
        with_tokenizer(getattr(models, name), 12)

    (problem,) = said(config)

    assert (problem.severity, problem.tensor) == ("error", "model.layers.0.mlp.weight_orig")
    assert "with a mask beside it, one of 2, likewise in 'b'. Call torch.nn.utils.prune.remove" in problem.message


def test_weights_that_look_quantised_are_one_warning_where_no_config_says_so(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    for name in "ab":
        packed = {f"model.layers.{i}.mlp.weight": torch.ones(320, 1, dtype=torch.uint8) for i in range(2)}
        write_model(getattr(models, name), models.tensors[name] | packed)

    (problem,) = said(config)

    assert problem.severity == "warning"
    assert problem.message.startswith("2 tensors look quantised (U8) without a quantization_config, likewise in 'b'.")


def with_tokenizer(directory: Path, tokens: int, **added: int) -> None:
    content = {
        "added_tokens": [{"id": row, "content": token} for token, row in added.items()],
        "model": {"vocab": {f"w{row}": row for row in range(tokens)}},
    }
    (directory / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("tokens", "added", "expected"),
    [
        (24, {}, ""),
        (20, {"x": 23}, ""),
        (24, {"x": 24}, "the tokenizer's id 24 lies beyond the 24 rows of the embedding (x)."),
        (24, {"x": 24, "y": 25}, "the tokenizer's ids 24 and 25 lie beyond the 24 rows of the embedding (x, y)."),
        (30, {}, "the tokenizer's ids 24 to 29 lie beyond the 24 rows of the embedding (w24, w25, w26, …)."),
    ],
)
def test_tokens_without_a_row_are_one_warning(
    models: SimpleNamespace, config: dict[str, Any], tokens: int, added: dict[str, int], expected: str
) -> None:
    for directory in (models.a, models.b):
        with_tokenizer(directory, tokens, **added)

    found = said(config)

    assert [problem.severity for problem in found] == (["warning"] if expected else [])
    if expected:
        assert found[0].message.startswith(f"{expected} If they are used, call resize_token_embeddings(")


def test_tokens_whose_ids_are_their_places_count(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for tokens, expected in ((24, []), (26, ["warning"])):
        content = {"model": {"type": "Unigram", "vocab": [[f"w{row}", -1.5] for row in range(tokens)]}}
        for directory in (models.a, models.b):
            (directory / "tokenizer.json").write_text(json.dumps(content, indent=1))

        assert [problem.severity for problem in said(config)] == expected


def test_tokens_added_in_a_file_of_their_own_count(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "added_tokens.json").write_text(json.dumps({"<x>": 24, "<y>": 25}))

    (problem,) = said(config)

    assert problem.message.startswith("the tokenizer's ids 24 and 25 lie")


def causal(**told: Any) -> dict[str, Any]:
    return {**CONFIG, "architectures": ["LlamaForCausalLM"], **told}


def test_a_head_that_nothing_ties_and_nobody_has_is_missing(models: SimpleNamespace, config: dict[str, Any]) -> None:
    config["options"] = {"check_loading": False}
    for name in "ab":
        say(getattr(models, name), architectures=["LlamaForCausalLM"], tie_word_embeddings=False)
    (problem,) = said(config)
    assert problem.severity == "error"
    assert problem.message.startswith("has no LM head, though LlamaForCausalLM has one, and tie_word_embeddings: false")

    for told in ({"architectures": ["LlamaModel"], "tie_word_embeddings": False}, {"tie_word_embeddings": True}):
        for name in "ab":
            say(getattr(models, name), **told)
        assert said(config) == []
    for name in "ab":
        head = {"cls.predictions.decoder.weight": torch.ones(24, 16)}
        write_model(getattr(models, name), models.tensors[name] | head, causal(tie_word_embeddings=False))
    assert said(config) == []


def test_a_classifier_and_a_causal_model_are_said_to_have_other_heads(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    config["options"] = {"check_loading": False}
    say(models.a, architectures=["LlamaForCausalLM"])
    classifier = causal(architectures=["LlamaForSequenceClassification"])
    write_model(models.b, models.tensors["b"] | {"score.weight": torch.ones(3, 16)}, classifier)

    (problem,) = said(config)

    assert problem.message == (
        "is a LlamaForSequenceClassification and 'a' a LlamaForCausalLM: one lacks the other's head (score.weight). "
        "Merge models with one kind of head, or set missing_tensors: donor."
    )
    config["options"]["missing_tensors"] = "donor"
    assert all(problem.severity != "error" for problem in said(config))


def test_a_stale_size_of_the_vocabulary_in_one_config_is_no_other_architecture(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    say(models.b, vocab_size=20)

    (problem,) = said(config)

    assert problem.severity == "note"
    assert problem.message == "vocab_size is 20, where the embedding has 24 rows. These count."
