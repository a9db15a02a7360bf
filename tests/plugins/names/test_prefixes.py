"""Vision-language models whose language part alone is merged: which of the tensors are meant, and that the rest is kept byte for byte."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from modelmerger import ConfigError, MergeConfig, ModelCompatibilityError, ModelMerger, merge
from safetensors.numpy import load_file, save_file

LAYERS = {
    "embed_tokens.weight": (10, 4),
    "layers.0.self_attn.q_proj.weight": (4, 4),
    "layers.0.mlp.up_proj.weight": (6, 4),
    "layers.1.self_attn.q_proj.weight": (4, 4),
    "layers.1.mlp.up_proj.weight": (6, 4),
    "norm.weight": (4,),
}
TOWER = {"visual.patch_embed.proj.weight": (4, 3), "visual.blocks.0.attn.qkv.weight": (12, 4)}


def write(folder: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    folder.mkdir()
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return tensors


def under(prefix: str) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in LAYERS.items()}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A vision-language model `vision`, one with two equal language parts `twins`, and a text model `text`."""
    monkeypatch.chdir(tmp_path)
    head = {"lm_head.weight": (10, 4)}
    vision = {f"model.{name}": shape for name, shape in TOWER.items()}
    twins = under("model.thinker.") | under("model.talker.")
    return SimpleNamespace(
        vision=write(tmp_path / "vision", under("model.language_model.") | vision | head, 1),
        twins=write(tmp_path / "twins", twins | vision | head, 2),
        text=write(tmp_path / "text", under("model.") | head, 3),
    )


def config(*models: Any, **options: Any) -> dict[str, Any]:
    entries = [{"path": model} if isinstance(model, str) else model for model in models]
    options = {"missing_tensors": "donor", **options}
    return {"strategy": "weighted", "models": entries, "options": options, "output_path": "merged"}


def merged(config: dict[str, Any]) -> dict[str, Any]:
    merge(MergeConfig(**config))
    return dict(load_file("merged/model.safetensors"))


def assert_half_way(result: dict[str, Any], whole: dict[str, Any], prefix: str, text: dict[str, Any]) -> None:
    """The part under the prefix and the head are averages; all else has the bytes of the whole model."""
    assert result.keys() == whole.keys()
    for name, tensor in whole.items():
        if name.startswith(prefix) or name == "lm_head.weight":
            other = text[name.replace(prefix, "model.")]
            mean = (tensor.astype(np.float64) + other.astype(np.float64)) / 2
            np.testing.assert_allclose(result[name], mean, rtol=1e-3, atol=1e-4)
        else:
            assert result[name].tobytes() == tensor.tobytes(), name


def test_the_tower_keeps_its_bytes_where_names_and_shapes_tell_which_part_is_meant(found: SimpleNamespace) -> None:
    result = merged(config("vision", "text"))
    assert_half_way(result, found.vision, "model.language_model.", found.text)


@pytest.mark.parametrize("part", ["thinker", "talker"])
@pytest.mark.parametrize("at", [0, 1])
def test_the_prefix_says_which_of_two_parts_is_meant_at_either_model(
    found: SimpleNamespace, part: str, at: int
) -> None:
    models: list[dict[str, Any]] = [{"path": "twins"}, {"path": "text"}]
    models[at]["prefix"] = f"model.{part}"
    assert_half_way(merged(config(*models)), found.twins, f"model.{part}.", found.text)


def test_both_may_say_theirs(found: SimpleNamespace) -> None:
    models = {"path": "twins", "prefix": "model.talker."}, {"path": "text", "prefix": "model."}
    assert_half_way(merged(config(*models)), found.twins, "model.talker.", found.text)


def test_the_prefix_of_a_model_that_is_put_into_a_text_model(found: SimpleNamespace) -> None:
    result = merged(config("text", {"path": "twins", "prefix": "model.talker."}))
    assert result.keys() == found.text.keys()
    for name in LAYERS:
        mean = (found.text[f"model.{name}"].astype(float) + found.twins[f"model.talker.{name}"].astype(float)) / 2
        np.testing.assert_allclose(result[f"model.{name}"], mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("missing", ["error", "donor", "union"])
def test_where_it_is_in_doubt_the_error_suggests_the_key(found: SimpleNamespace, missing: str) -> None:
    with pytest.raises(ModelCompatibilityError) as refused:
        ModelMerger(MergeConfig(**config("twins", "text", missing_tensors=missing))).check_compatibility()
    (problem,) = refused.value.problems
    assert "it is unclear which of its tensors are meant" in str(problem)
    assert "Give the model a prefix, such as model.t" in str(problem)
    assert len(str(problem)) <= 300


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["twins", {"path": "text", "prefix": "model.thinkr."}], "'text' and 'twins' have no tensor whose name begins"),
        ([{"path": "twins", "prefix": "model.thinkr."}, "text"], "'twins' has no tensor whose name begins"),
        (["twins", {"path": "text", "prefix": "model.visual."}], "has no tensor that fits one of 'twins' with the"),
    ],
)
def test_a_prefix_that_nothing_has_or_that_fits_nothing_is_refused(
    found: SimpleNamespace, models: list[Any], said: str
) -> None:
    with pytest.raises(ModelCompatibilityError) as refused:
        ModelMerger(MergeConfig(**config(*models))).check_compatibility()
    assert said in str(refused.value)


def test_a_prefix_is_a_text(found: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=r"models\[0\]\.prefix: must be a text"):
        MergeConfig(**config({"path": "text", "prefix": 3}))
