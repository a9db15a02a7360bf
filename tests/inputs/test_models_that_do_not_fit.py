"""Rows C5 to C7: tensors that only some models have, tied and untied heads, integers and quantised weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CONFIG, random_tensors, write_model
from inputs.refusing import weighted
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, check_model_compatibility, merge, shown
from safetensors.torch import load_file

Refused = Callable[..., SimpleNamespace]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def with_head(tensors: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    return {**tensors, HEAD: random_tensors(seed)[EMBEDDING]}


def test_a_tensor_that_only_some_models_have_is_named(models: SimpleNamespace, refused: Refused) -> None:
    """C5: one the donor has and another lacks, and the other way round; each a line."""
    extra = write_model(models.folder / "extra", {**models.tensors["b"], "model.extra": torch.zeros(3)})
    lacking = write_model(models.folder / "lacking", {k: v for k, v in models.tensors["b"].items() if "conv" not in k})

    more = refused(weighted(models.a, extra)).text
    less = refused(weighted(models.a, lacking)).text
    both = refused(weighted(lacking, extra)).text

    assert more.startswith(f"{shown(str(extra))}: model.extra: 'extra' has this tensor and 'a' lacks it.")
    assert less.startswith(
        f"{shown(str(lacking))}: model.layers.1.conv.weight: 'a' has this tensor and 'lacking' lacks it."
    )
    assert "'extra' has this tensor and 1 more that 'lacking' lacks." in both


def test_at_most_twenty_lines_are_said(models: SimpleNamespace) -> None:
    """C5, D5."""
    first = write_model(models.folder / "first", {"t": torch.zeros(1)}, None)
    others = [write_model(models.folder / f"m{i:02}", {"t": torch.zeros(i + 2)}, None) for i in range(29)]

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**weighted(first, *others))).check_compatibility()

    lines = str(refusal.value).splitlines()
    assert (len(lines), lines[-1]) == (21, "… and 9 more")
    assert len(refusal.value.problems) == 29


def test_a_head_that_is_left_out_because_it_is_tied_stands_in_with_the_embedding(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """C6: an untied donor and a tied model."""
    untied = with_head(models.tensors["a"], 7)
    write_model(models.a, untied, {**CONFIG, "tie_word_embeddings": False})

    merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    for name, other in ((HEAD, EMBEDDING), (EMBEDDING, EMBEDDING)):
        exact = 0.6 * untied[name].double() + 0.4 * models.tensors["b"][other].double()
        torch.testing.assert_close(merged[name].double(), exact, rtol=2**-8, atol=0)
    assert json.loads((models.output / "config.json").read_text())["tie_word_embeddings"] is False


def test_two_tied_models_stay_tied(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """C6: no head is made up, and the config says so."""
    merge(MergeConfig(**config))

    assert load_file(models.output / "model.safetensors").keys() == models.tensors["a"].keys()
    assert json.loads((models.output / "config.json").read_text())["tie_word_embeddings"] is True


def test_an_untied_head_has_no_place_in_a_tied_donor(models: SimpleNamespace, refused: Refused) -> None:
    """C6."""
    write_model(models.b, with_head(models.tensors["b"], 7), {**CONFIG, "tie_word_embeddings": False})

    text = refused(weighted(models.a, models.b)).text

    assert text.startswith(
        f"{shown(str(models.b))}: {HEAD}: 'b' has an LM head of its own here, other than its {EMBEDDING}, and 'a' ties"
    )


def test_a_missing_head_is_missed_where_the_config_says_untied(models: SimpleNamespace, refused: Refused) -> None:
    """C6: nothing stands in for a head that should be there."""
    write_model(models.a, with_head(models.tensors["a"], 7), {**CONFIG, "tie_word_embeddings": False})
    write_model(models.b, models.tensors["b"], {**CONFIG, "tie_word_embeddings": False})

    assert refused(weighted(models.a, models.b)).text.startswith(f"{shown(str(models.b))}: {HEAD}: 'a' has this tensor")


def test_equal_integers_are_taken_over_bit_for_bit(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """C7."""
    ids = {"model.position_ids": torch.arange(7), "model.mask": torch.tensor([True, False])}
    for name in ("a", "b"):
        write_model(getattr(models, name), {**models.tensors[name], **ids})

    merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    assert all(torch.equal(merged[name], value) and merged[name].dtype == value.dtype for name, value in ids.items())


def test_integer_weights_that_differ_are_refused(
    models: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    """C7: their bits are read by `merge`, before anything is written."""
    for step, name in enumerate(("a", "b")):
        write_model(getattr(models, name), {**models.tensors[name], "model.ids.weight": torch.arange(7) + step})
    path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(models.a, models.b, output_path=str(models.output))))

    result = command("merge", path)

    assert result.status == 3
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: {shown(str(models.b))}: model.ids.weight: holds I64 numbers, which can only be taken over"
    )
    assert not models.output.exists()


def test_counters_that_differ_are_the_donors_and_the_report_says_so(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    for step, name in enumerate(("a", "b")):
        counters = {f"model.bn{i}.num_batches_tracked": torch.tensor(step + i) for i in range(2)}
        write_model(getattr(models, name), {**models.tensors[name], **counters})

    report = merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    assert [merged[f"model.bn{i}.num_batches_tracked"].item() for i in range(2)] == [0, 1]
    (note,) = [note for note in report.notes if "integers" in note.message]
    assert (note.severity, note.tensor) == ("note", "model.bn0.num_batches_tracked")
    assert note.message.endswith("taken from 'a'. This is the first.")
    assert any(
        "integers" in line["message"] for line in json.loads((models.output / "modelmerger.json").read_text())["notes"]
    )


def test_counters_that_one_model_lacks_are_the_donors(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """As old versions of torch and transformers wrote them."""
    ours = {"bn.num_batches_tracked": torch.tensor(3), "emb.position_ids": torch.arange(4)}
    theirs = {"attn.masked_bias": torch.tensor(True)}
    write_model(models.a, {**models.tensors["a"], **ours})
    write_model(models.b, {**models.tensors["b"], **theirs})

    report = merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    assert {name: merged[name].tolist() for name in ours} == {name: tensor.tolist() for name, tensor in ours.items()}
    assert "attn.masked_bias" not in merged
    said = [note.message for note in report.notes if note.where == str(models.a)]
    assert any("not every model has: taken from the donor 'a'" in message for message in said)
    assert any("has no place for: left out, for example attn.masked_bias" in message for message in said)


MASK = torch.ones(6, 6).tril().view(1, 1, 6, 6)
BUFFERS = {
    "Llama": ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.tensor([1.0, 0.1])),
    "GPT-2": ("h.0.attn.bias", MASK),
    "GPT-NeoX": ("gpt_neox.layers.0.attention.masked_bias", torch.tensor(-1e9)),
}


@pytest.mark.parametrize("whose", BUFFERS)
def test_floats_that_a_class_makes_itself_may_be_missing(
    models: SimpleNamespace, config: dict[str, Any], whose: str
) -> None:
    """Old files store rotary frequencies and causal masks, and files of fine-tunes do not."""
    name, value = BUFFERS[whose]
    write_model(models.a, {**models.tensors["a"], name: value})
    report = merge(MergeConfig(**config))
    assert torch.equal(load_file(models.output / "model.safetensors")[name], value)
    assert any("not every model has: taken from the donor 'a'" in note.message for note in report.notes)

    config["models"].reverse()
    report = merge(MergeConfig(**config | {"output_path": str(models.folder / "reversed")}))
    assert name not in load_file(models.folder / "reversed/model.safetensors")
    assert any(f"has no place for: left out, for example {name}" in note.message for note in report.notes)


OTHERWISE = {
    "whole numbers of two kinds": ("emb.position_ids", torch.arange(4), torch.arange(4).int()),
    "a row and a vector": ("emb.position_ids", torch.arange(4), torch.arange(4).view(1, 4)),
    "a mask of bytes and of truths": ("attention.bias", MASK.byte(), MASK.bool()),
    "a mask of truths and of floats": ("attn.bias", MASK.bool(), MASK),
    "a mask of floats and of truths": ("attn.bias", MASK, MASK.bool()),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_what_is_no_weight_may_be_stored_otherwise(models: SimpleNamespace, config: dict[str, Any], case: str) -> None:
    name, ours, theirs = OTHERWISE[case]
    for model, value in (("a", ours), ("b", theirs)):
        write_model(getattr(models, model), {**models.tensors[model], name: value})

    report = merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")[name]
    assert merged.dtype == ours.dtype
    assert torch.equal(merged, ours)
    (note,) = [note for note in report.notes if "store alike" in note.message]
    assert note.message.startswith("1 tensor that not all models store alike, and that is no weight: taken from the")


def test_a_bias_that_is_no_mask_may_not_be_missing(models: SimpleNamespace, refused: Refused) -> None:
    write_model(models.a, {**models.tensors["a"], "h.0.attn.bias": torch.zeros(8)})

    assert "'a' has this tensor and 'b' lacks it" in refused(weighted(models.a, models.b)).text


def quantised(models: SimpleNamespace, name: str, shift: int) -> Path:
    weights = (torch.arange(64).view(8, 8) + shift).to(torch.uint8)
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    return write_model(getattr(models, name), {**models.tensors[name], "model.quantised": weights}, config)


def test_quantised_weights_that_differ_are_refused_with_their_scheme(
    models: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    """C7."""
    path = models.folder / "merge.json"
    path.write_text(
        json.dumps(weighted(quantised(models, "a", 0), quantised(models, "b", 1), output_path=str(models.output)))
    )

    result = command("merge", path)

    assert result.status == 3
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "model.quantised: holds quantised weights (bitsandbytes)" in line
    assert "Dequantise the models first" in line
    assert not models.output.exists()


def test_float8_weights_of_equal_bits_are_taken_over_and_are_not_the_dtype_of_the_config(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """C7: the config's dtype is that of what is computed with."""
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(3)).to(torch.float8_e4m3fn)
    for name in ("a", "b"):
        write_model(
            getattr(models, name),
            {**models.tensors[name], "model.quantised": weights},
            {**CONFIG, "quantization_config": {"quant_method": "fp8"}},
        )

    merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")["model.quantised"]
    assert torch.equal(merged.view(torch.uint8), weights.view(torch.uint8))
    assert json.loads((models.output / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_other_shapes_and_dtype_families_are_named_with_both_values(models: SimpleNamespace, refused: Refused) -> None:
    """C4."""
    shaped = {**models.tensors["b"], "model.norm.weight": torch.zeros(17)}
    typed = {**models.tensors["b"], "model.norm.weight": torch.zeros(16, dtype=torch.int32)}

    shape = refused(weighted(models.a, write_model(models.folder / "shaped", shaped))).text
    family = refused(weighted(models.a, write_model(models.folder / "typed", typed))).text

    assert "model.norm.weight: has shape [17] here and [16] in 'a'." in shape
    assert "model.norm.weight: is I32 here and BF16 in 'a'." in family


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "model_type"])
def test_configs_that_differ_where_the_weights_depend_on_it_are_refused(
    models: SimpleNamespace, refused: Refused, key: str
) -> None:
    """C4."""
    ours = {**CONFIG, "num_hidden_layers": 2}
    (models.a / "config.json").write_text(json.dumps(ours))
    theirs = "other" if key == "model_type" else ours[key] + 1
    (models.b / "config.json").write_text(json.dumps({**ours, key: theirs}))

    text = refused(weighted(models.a, models.b)).text

    assert text.startswith(
        f"{shown(str(models.b / 'config.json'))}: {key} is {theirs!r} here and {ours[key]!r} in 'a'."
    )
    with pytest.raises(ModelCompatibilityError, match=key):
        check_model_compatibility([{"path": str(models.a)}, {"path": str(models.b)}])
