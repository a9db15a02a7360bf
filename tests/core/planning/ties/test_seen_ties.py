"""One tied matrix is one matrix, whichever of its names a file has, and however often."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import MergeConfig, ModelCompatibilityError, merge
from safetensors.torch import load_file

from tests.conftest import random_tensors, write_model

TIED: dict[str, Any] = {"tie_word_embeddings": True}
SHAPES = {"embedding": (12, 8), "model.layers.0.w": (8, 8), "model.norm.weight": (8,)}
NAMES = {
    "Llama": ("model.embed_tokens.weight", "lm_head.weight"),
    "Whisper": ("model.decoder.embed_tokens.weight", "proj_out.weight"),
    "DistilBERT": ("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
    "T5": ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
}
Merge = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def merged(tmp_path: Path) -> Merge:
    """Merges models of these tensors and configs in halves; the tensors of the output."""

    def run(*models: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]], **options: Any) -> dict[str, torch.Tensor]:
        paths = [write_model(tmp_path / "ab"[i], tensors, config) for i, (tensors, config) in enumerate(models)]
        told = [{"path": str(path)} for path in paths]
        output = str(tmp_path / "out")
        run.report = merge(MergeConfig("weighted", told, output_path=output, options={"overwrite": True, **options}))  # type: ignore[attr-defined]
        run.config = json.loads((tmp_path / "out/config.json").read_text())  # type: ignore[attr-defined]
        return load_file(tmp_path / "out/model.safetensors")

    return run


def stored(seed: int, *names: str) -> dict[str, torch.Tensor]:
    """A model with its matrix of tokens under these names."""
    tensors = random_tensors(seed, torch.float32, SHAPES)
    matrix = tensors.pop("embedding")
    return {**{name: matrix.clone() for name in names}, **tensors}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_copies_of_a_tied_matrix_are_that_matrix_in_either_order(names: tuple[str, ...], merged: Merge) -> None:
    one, all_of_them = stored(1, names[0]), stored(2, *names)
    expected = (one[names[0]] + all_of_them[names[0]]) / 2
    for models, kept in (((one, all_of_them), names[:1]), ((all_of_them, one), names)):
        found = merged(*((model, TIED) for model in models))
        assert set(found) == {*kept, "model.layers.0.w", "model.norm.weight"}
        for name in kept:
            torch.testing.assert_close(found[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_each_may_have_it_under_another_name(names: tuple[str, ...], merged: Merge) -> None:
    one, other = stored(1, names[0]), stored(2, names[1])
    found = merged((one, TIED), (other, {}))
    torch.testing.assert_close(found[names[0]], (one[names[0]] + other[names[1]]) / 2, rtol=0, atol=0)
    assert names[1] not in found
    found = merged((other, TIED), (one, TIED))
    assert names[0] not in found


def test_the_vector_beside_a_tied_matrix_is_tied_with_it_and_no_other_vector(merged: Merge) -> None:
    names = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    zeros = {"cls.predictions.bias": torch.zeros(12)}
    twice = {**stored(2, *names), **zeros, "cls.predictions.decoder.bias": torch.zeros(12)}
    found = merged((stored(1, names[0]) | zeros, TIED), (twice, TIED))
    assert set(found) == {names[0], "cls.predictions.bias", "model.layers.0.w", "model.norm.weight"}
    stranger = {**stored(2, names[0]), **zeros, "pooler.bias": torch.zeros(12)}
    with pytest.raises(ModelCompatibilityError, match="pooler"):
        merged((stored(1, names[0]) | zeros, TIED), (stranger, TIED))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (stored(1, "model.embed_tokens.weight"), stored(2, "model.embed_tokens.weight", "lm_head.weight")),
        (stored(1, "model.embed_tokens.weight", "lm_head.weight"), stored(2, "model.embed_tokens.weight")),
    ],
)
def test_a_model_whose_config_unties_lacks_what_it_does_not_store(a: Any, b: Any, merged: Merge) -> None:
    untied = {"tie_word_embeddings": False}
    with pytest.raises(ModelCompatibilityError, match=r"lm_head\.weight"):
        merged((a, untied), (b, untied))


def test_equal_matrices_within_layers_are_not_tied(merged: Merge) -> None:
    other = stored(2, "model.embed_tokens.weight")
    with pytest.raises(ModelCompatibilityError, match=r"model\.layers\.1\.w"):
        merged(
            (stored(1, "model.embed_tokens.weight"), TIED),
            (other | {"model.layers.1.w": other["model.layers.0.w"].clone()}, TIED),
        )


@pytest.fixture
def drifted() -> SimpleNamespace:
    """A tied model, and one whose LM head drifted apart from its embedding."""
    tied, apart = stored(1, "model.embed_tokens.weight"), stored(2, "model.embed_tokens.weight", "lm_head.weight")
    apart["lm_head.weight"][3, 5] += 0.5
    return SimpleNamespace(tied=(tied, TIED), apart=(apart, TIED))


def test_a_drifted_head_is_refused_with_the_way_out(drifted: SimpleNamespace, merged: Merge) -> None:
    with pytest.raises(
        ModelCompatibilityError, match=r"an LM head of its own here, other than its .* Set options\.untie: true"
    ) as error:
        merged(drifted.tied, drifted.apart)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("order", [("tied", "apart"), ("apart", "tied")])
def test_untied_both_are_written_and_the_config_says_so(
    drifted: SimpleNamespace, merged: Merge, order: tuple[str, str]
) -> None:
    found = merged(*(getattr(drifted, name) for name in order), untie=True)
    tied, apart = drifted.tied[0], drifted.apart[0]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        torch.testing.assert_close(found[name], (tied["model.embed_tokens.weight"] + apart[name]) / 2, rtol=0, atol=0)
    assert merged.config["tie_word_embeddings"] is False  # type: ignore[attr-defined]


def test_untying_says_so_wherever_the_config_does(drifted: SimpleNamespace, merged: Merge) -> None:
    config = {"text_config": {"tie_word_embeddings": True}, "vision_config": {"depth": 1}}
    merged((drifted.tied[0], config), (drifted.apart[0], config), untie=True)
    assert merged.config["text_config"] == {"tie_word_embeddings": False}  # type: ignore[attr-defined]
    assert (merged.config["tie_word_embeddings"], merged.config["vision_config"]) == (False, {"depth": 1})  # type: ignore[attr-defined]


def test_a_drifted_donor_is_a_warning(drifted: SimpleNamespace, merged: Merge) -> None:
    drifted.apart[0]["lm_head.weight"] += 0.5
    found = merged(drifted.apart, drifted.tied)
    (said,) = (str(note) for note in merged.report.notes if note.severity == "warning")  # type: ignore[attr-defined]
    assert "lm_head.weight: differs from model.embed_tokens.weight, though the config ties the two" in said
    assert set(found) == set(drifted.apart[0])


def test_untying_without_a_head_has_no_effect_and_says_so(drifted: SimpleNamespace, merged: Merge) -> None:
    found = merged(drifted.tied, drifted.tied, untie=True)
    assert "lm_head.weight" not in found
    assert any("options.untie: has no effect" in str(note) for note in merged.report.notes)  # type: ignore[attr-defined]
    assert merged.config["tie_word_embeddings"] is True  # type: ignore[attr-defined]


HALVES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OF_HALVES = ("encoder.w", "decoder.w")


@pytest.mark.parametrize(("prefix", "model_type"), [("", "t5"), ("model.", "bart")])
def test_an_encoder_decoder_has_all_that_it_ties_where_it_is_untied(
    prefix: str, model_type: str, merged: Merge
) -> None:
    config = TIED | {"is_encoder_decoder": True, "model_type": model_type}
    shared, head, halves = f"{prefix}shared.weight", "lm_head.weight", [f"{prefix}{half}" for half in HALVES]
    layers = {f"{prefix}{name}": torch.ones(1) for name in OF_HALVES}
    tied, apart = stored(1, shared) | layers, stored(2, shared, head, halves[0]) | layers
    apart[head][3, 5] += 0.5
    apart[halves[0]][1, 2] -= 0.5

    with pytest.raises(ModelCompatibilityError) as error:
        merged((tied, config), (apart, config))
    said = {problem.tensor: problem.message for problem in error.value.problems}
    assert "has an LM head of its own" in said[head]
    assert "has an embedding of its own" in said[halves[0]]

    found = merged((tied, config), (apart, config), untie=True)
    assert set(found) == {*tied, head, *halves}
    for name in (shared, head, *halves):
        torch.testing.assert_close(found[name], (tied[shared] + apart.get(name, apart[shared])) / 2, rtol=0, atol=0)
    # Of T5, the key says how the output of the decoder is scaled too, and loaders go by the bits.
    assert merged.config["tie_word_embeddings"] is (model_type == "t5")  # type: ignore[attr-defined]
