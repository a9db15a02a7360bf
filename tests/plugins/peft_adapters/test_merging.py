"""Adapters merged into an adapter: what PEFT loads of it is the weighted sum of what PEFT makes of each, in float64."""

import copy
import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from plugins.peft_adapters.tiny_adapters import (
    by_peft,
    load_base,
    make_adapter,
    shake,
)
from safetensors.torch import load_file, save_file

Deltas = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def three(bases: SimpleNamespace) -> list[Path]:
    """Adapters of qwen2 that share some layers: of other ranks, alphas, patterns, and one rank-stabilised."""
    return [
        make_adapter(bases.folder / "one", bases.qwen2, 1),
        make_adapter(bases.folder / "two", bases.qwen2, 2, r=3, use_rslora=True, target_modules=["q_proj", "up_proj"]),
        make_adapter(
            bases.folder / "three", bases.qwen2, 3, r=2, rank_pattern={"q_proj": 5}, alpha_pattern={"layers.1.*v_proj": 9},
        ),
    ]  # fmt: skip


def deltas(base: Path, adapter: Path) -> Deltas:
    """What an adapter changes of its base, as PEFT folds it in float64; it must load without a word."""
    from peft import PeftModel

    model = load_base(base).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)  # as of the sources
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`", UserWarning)
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).merge_and_unload()
    return {name: tensor.double() - before[name] for name, tensor in model.state_dict().items()}


def merge(
    output: Path, adapters: Sequence[Path], weights: Sequence[Any] = (), **config: Any
) -> modelmerger.MergeReport:
    models: list[dict[str, Any]] = [{"path": str(path)} for path in adapters]
    for model, weight in zip(models, weights, strict=False):
        model["weight"] = weight
    settings = {"strategy": "weighted", "peft_config": {"merge_adapters": True}, **config}
    return modelmerger.merge(modelmerger.MergeConfig(models=models, output_path=str(output), **settings))


def combined(parts: Sequence[Deltas], coefficients: Sequence[float]) -> Deltas:
    return {name: sum(c * part[name] for c, part in zip(coefficients, parts, strict=True)) for name in parts[0]}  # type: ignore[misc]  # the sum begins with 0


def distance(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """The largest relative error of an update; what is not changed must not change."""
    return max(
        (
            float((found[name] - wanted[name]).norm() / (wanted[name].norm() or 1))
            for name in wanted
            if wanted[name].norm() > 1e-12 or found[name].norm() > 1e-12
        ),
        default=math.nan,
    )


STRATEGIES: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "weighted": ({}, [0.5, 0.25, 0.75], [1 / 3, 1 / 6, 1 / 2]),
    "not normalised": ({"options": {"normalize_weights": False}}, [0.5, -0.25, 1.5], [0.5, -0.25, 1.5]),
    "decayed": ({"options": {"weight_decay": 0.1}}, [1, 1, 2], [0.225, 0.225, 0.45]),
    "sequential": ({"strategy": "sequential"}, [1, 0.5, 0.25], [0.375, 0.375, 0.25]),
    "task_arithmetic": (
        {"strategy": "task_arithmetic", "options": {"scaling_factor": 0.5}},
        [1, -0.5, 2],
        [0.5, -0.25, 1],
    ),
    "cat": ({"options": {"merge_method": "cat"}}, [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_linear_strategies_add_up_updates(bases: SimpleNamespace, three: list[Path], tmp_path: Path, name: str) -> None:
    config, weights, coefficients = STRATEGIES[name]
    report = merge(tmp_path / "merged", three, weights, **config)
    wanted = combined([deltas(bases.qwen2, path) for path in three], coefficients)
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6
    assert report.relative_error is not None
    assert report.relative_error < 1e-6


def test_subtracting_takes_an_update_away(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    models = [{"path": str(three[0])}, {"path": str(three[1]), "weight": -0.5, "operation": "subtract"}]
    config = modelmerger.MergeConfig(
        strategy="task_arithmetic",
        models=models,
        output_path=str(tmp_path / "merged"),
        peft_config={"merge_adapters": True, "base_model_path": str(bases.qwen2)},
    )
    modelmerger.merge(config)
    wanted = combined([deltas(bases.qwen2, path) for path in three[:2]], [1, -0.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_slerp_turns_updates_along_the_arc(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, normalize: bool
) -> None:
    options = {"interpolation_factor": 0.3, "normalize_before_slerp": normalize}
    merge(tmp_path / "merged", [three[0], three[2]], strategy="slerp", options=options)
    ours, theirs = deltas(bases.qwen2, three[0]), deltas(bases.qwen2, three[2])
    wanted = {name: slerped(ours[name], theirs[name], 0.3, normalize) for name in ours}
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def slerped(first: torch.Tensor, second: torch.Tensor, t: float, normalize: bool) -> torch.Tensor:
    norms = first.norm(), second.norm()
    if min(norms) < 1e-8:
        return (1 - t) * first + t * second
    angle = torch.arccos((first * second).sum() / (norms[0] * norms[1]))
    shares = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()
    if not normalize:
        return shares[0] * first + shares[1] * second
    return ((1 - t) * norms[0] + t * norms[1]) * (shares[0] * first / norms[0] + shares[1] * second / norms[1])


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "embedding": ("qwen2", [{"target_modules": ["embed_tokens", "k_proj"]}, {"r": 3, "target_modules": ["embed_tokens"]}]),
    "tied": ("llama", [{"target_modules": ["gate_proj", "k_proj"]}, {"target_modules": ["k_proj"], "r": 2}]),
    "tied embedding": ("llama", [{"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["q_proj"]}]),
    "conv1d": ("gpt2", [{"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, {"target_modules": ["c_fc"], "fan_in_fan_out": True, "r": 7}]),
    "biases": ("qwen2", [{"bias": "all"}, {"bias": "lora_only"}]),
    "lora_bias": ("qwen2", [{"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["v_proj"]}]),
    "modules_to_save": ("qwen2", [{"modules_to_save": ["lm_head", "norm"]}, {"modules_to_save": ["norm"]}]),
    "saved and updated": ("qwen2", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["lm_head", "q_proj"]}]),
    "tokens": ("qwen2", [{"trainable_token_indices": [3, 88, 64]}, {"trainable_token_indices": [7, 64]}]),
    "experts": ("qwen3_moe", [{"target_parameters": EXPERTS, "rank_pattern": {"k_proj": 2}, "target_modules": ["k_proj"]}, {"target_parameters": EXPERTS, "r": 3}, {"target_modules": ["k_proj"]}]),
    "experts and router": ("mixtral", [{"target_modules": [], "target_parameters": [*EXPERTS, "gate.weight"]}] * 2),
    "experts of a stack": ("gpt_oss", [{"target_parameters": EXPERTS}, {"target_parameters": EXPERTS, "use_rslora": True}]),
    "tokens by module": ("qwen2", [{"trainable_token_indices": {"embed_tokens": [3, 88]}}, {}]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_update(bases: SimpleNamespace, tmp_path: Path, name: str) -> None:
    kind, settings = KINDS[name]
    base = getattr(bases, kind)
    adapters = [make_adapter(tmp_path / f"{i}", base, i, **each) for i, each in enumerate(settings)]
    merge(tmp_path / "merged", adapters, [2, 1, 0][: len(adapters)])
    wanted = combined([deltas(base, path) for path in adapters], [2 / 3, 1 / 3, 0][: len(adapters)])
    assert distance(deltas(base, tmp_path / "merged"), wanted) < 1e-5


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_svd_is_the_best_approximation_of_its_rank(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, rank: int
) -> None:
    """Eckart and Young, against the singular values of the full matrices; the report says what is missing."""
    report = merge(tmp_path / "merged", three, options={"merge_method": "svd", "rank": rank})
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    found = deltas(bases.qwen2, tmp_path / "merged")
    missing = 0.0
    for name, exact in wanted.items():
        values = torch.linalg.svdvals(exact.reshape(exact.shape[0], -1))
        least = float(values[rank:].norm())
        assert float((found[name] - exact).norm()) == pytest.approx(least, rel=1e-4, abs=1e-6 * float(exact.norm()))
        if exact.norm():
            error = report.observed[name]["relative error"]
            assert error == pytest.approx(least / float(exact.norm()), rel=1e-4, abs=1e-6)
        missing += least**2
    overall = math.sqrt(missing / sum(float(exact.norm()) ** 2 for exact in wanted.values()))
    assert report.relative_error == pytest.approx(overall, rel=1e-4)
    warned = [note for note in report.notes if note.severity == "warning" and "more than 10 %" in note.message]
    assert bool(warned) == (overall > 0.1)


def test_the_rank_of_svd_is_the_largest_unless_given(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / f"{rank}", bases.qwen2, rank, r=rank) for rank in (2, 5)]
    merge(tmp_path / "merged", adapters, options={"merge_method": "svd"})
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (5, 5, {})


@pytest.mark.parametrize("weights", [[0.7, 0.3], [1.5, -0.5]])
def test_peft_linear_is_what_peft_makes(bases: SimpleNamespace, tmp_path: Path, weights: list[float]) -> None:
    from peft import PeftModel

    adapters = [make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, lora_alpha=seed) for seed in (1, 2)]
    report = merge(tmp_path / "merged", adapters, weights, options={"merge_method": "peft_linear"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(load_base(bases.qwen2), adapters[0], adapter_name="first")
        model.load_adapter(adapters[1], adapter_name="second")
        model.add_weighted_adapter(["first", "second"], weights, "sum", combination_type="linear")
        model.save_pretrained(tmp_path / "by peft", selected_adapters=["sum"])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, tmp_path / "by peft" / "sum")) < 1e-5
    exact = combined([deltas(bases.qwen2, path) for path in adapters], weights)
    found = deltas(bases.qwen2, tmp_path / "merged")
    error = math.sqrt(
        sum(float((found[n] - exact[n]).norm() ** 2) for n in exact) / sum(float(exact[n].norm() ** 2) for n in exact)
    )
    assert report.relative_error == pytest.approx(error, rel=1e-4)
    assert error > 0.1
    assert any("more than 10 %" in note.message for note in report.notes)


def test_redundant_directions_are_removed(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """An adapter merged with itself keeps its rank, and with what it becomes when half of it is taken away."""
    shutil.copytree(three[0], tmp_path / "copy")
    merge(tmp_path / "merged", [three[0], tmp_path / "copy"], [2, -0.5], options={"normalize_weights": False})
    assert json.loads((tmp_path / "merged" / "adapter_config.json").read_text())["r"] == 4
    wanted = combined([deltas(bases.qwen2, three[0])], [1.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_updates_that_cancel_leave_an_adapter_of_zeros(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(three[0], tmp_path / "copy")
    report = merge(tmp_path / "merged", [three[0], tmp_path / "copy"], [1, -1], options={"normalize_weights": False})
    assert all(tensor.norm() == 0 for tensor in deltas(bases.qwen2, tmp_path / "merged").values())
    assert report.relative_error == 0


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 2**-8), ("float16", 2**-11), ("float64", 1e-12)])
def test_factors_are_written_in_torch_dtype(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, dtype: str, most: float
) -> None:
    report = merge(
        tmp_path / "merged", three, [1, -1, 0.25], options={"torch_dtype": dtype, "normalize_weights": False}
    )
    tensors = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1, -1, 0.25])
    found = deltas(bases.qwen2, tmp_path / "merged")
    assert distance(found, wanted) < most
    for name, exact in wanted.items():
        if exact.norm():
            error = float((found[name] - exact).norm() / exact.norm())
            assert report.observed[name]["relative error"] == pytest.approx(error, rel=1e-3, abs=1e-14)


def test_a_weight_of_0_leaves_no_trace(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """Of the second, which alone changes up_proj; an adapter of weight 0 is not read."""
    merge(tmp_path / "merged", three[:2], [1, 0])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, three[0])) < 1e-6
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert "up_proj" not in config["target_modules"]


def test_weights_by_layer_and_pattern(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    weights = [{"*layers.0.*": 1.0, "default": 0.25}, {"*q_proj*": [0, 2.0], "default": 1}]
    merge(tmp_path / "merged", [three[0], three[2]], weights, options={"normalize_weights": False})
    ours, theirs = deltas(bases.qwen2, three[0]), deltas(bases.qwen2, three[2])
    wanted = {
        name: (1.0 if ".layers.0." in name else 0.25) * ours[name]
        + ((0.0 if ".layers.0." in name else 2.0) if "q_proj" in name else 1.0) * theirs[name]
        for name in ours
    }
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_matrices_that_options_keep_have_no_update(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, target_modules=["embed_tokens", "lm_head", "k_proj"])
        for seed in (1, 2)
    ]
    merge(tmp_path / "merged", adapters, options={"merge_embeddings": False, "merge_lm_head": False})
    wanted = combined([deltas(bases.qwen2, path) for path in adapters], [0.5, 0.5])
    wanted |= {name: 0 * wanted[name] for name in wanted if "embed_tokens" in name or "lm_head" in name}
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "tokens and saved"])
@pytest.mark.parametrize("method", ["linear", "svd"])
def test_folded_into_the_base(bases: SimpleNamespace, tmp_path: Path, kind: str, method: str) -> None:
    """merge_adapters: true with preserve_base_model: false."""
    base = bases.gpt2 if kind == "gpt2" else bases.qwen2
    settings: dict[str, Any] = {"gpt2": {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}}.get(kind, {})
    if kind == "tokens and saved":
        settings = {"trainable_token_indices": [4, 9], "modules_to_save": ["norm"]}
    adapters = [make_adapter(tmp_path / f"{seed}", base, seed, **settings) for seed in (1, 2)]
    merge(tmp_path / "adapter", adapters, [2, 1], options={"merge_method": method, "torch_dtype": "float64"})
    merge(tmp_path / "model", adapters, [2, 1], options={"preserve_base_model": False, "merge_method": method})
    changes = deltas(base, tmp_path / "adapter")
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "model"))
    assert (tmp_path / "model" / "config.json").exists()
    for name, tensor in before.items():
        wanted = tensor.double() + changes[name]
        assert after[name].dtype == tensor.dtype
        assert float((after[name].double() - wanted).abs().max()) <= 1e-7 * float(wanted.abs().max())


def test_a_base_in_bfloat16(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """The factors are exact whatever the base is written in; folded, the base's dtype is kept, with one rounding."""
    model = load_base(bases.qwen2).bfloat16()
    model.save_pretrained(tmp_path / "half")
    peft = {"merge_adapters": True, "base_model_path": str(tmp_path / "half")}
    merge(tmp_path / "adapter", three, peft_config=peft)
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    assert distance(deltas(bases.qwen2, tmp_path / "adapter"), wanted) < 1e-6
    merge(tmp_path / "model", three, peft_config=peft, options={"preserve_base_model": False})
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "model"))
    for name, tensor in before.items():
        exact = tensor.double() + wanted[name]
        assert after[name].dtype == torch.bfloat16
        assert ((after[name].double() - exact).abs() <= exact.abs() * 2**-8 * (1 + 2**-10) + 1e-6).all()


def test_python_gets_a_peft_model(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """It computes what the adapter does on the base, and is saved as an adapter that another merge can take."""
    from peft import PeftModel

    config = modelmerger.MergeConfig(
        strategy="weighted", models=[{"path": str(path)} for path in three], peft_config={"merge_adapters": True}
    )
    merger = modelmerger.ModelMerger(config)
    model = merger.merge()
    assert isinstance(model, PeftModel)
    assert not model.training
    tokens = torch.arange(12)[None]
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    reference = load_base(bases.qwen2).double()
    state = {name: tensor + wanted[name] for name, tensor in reference.state_dict().items()}
    reference.load_state_dict(state)
    with torch.no_grad():
        difference = model(input_ids=tokens).logits.double() - reference(input_ids=tokens).logits
    assert float(difference.abs().max()) < 1e-4
    merger.save_merged_model(model, tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md", "modelmerger.json")
    }
    modelmerger.verify(tmp_path / "saved")
    assert distance(deltas(bases.qwen2, tmp_path / "saved"), wanted) < 1e-6


def test_the_plan_says_what_is_merged(bases: SimpleNamespace, three: list[Path]) -> None:
    models = [{"path": str(path)} for path in three]
    said = {}
    for options in ({}, {"preserve_base_model": False}):
        config = modelmerger.MergeConfig(
            strategy="weighted", models=models, options=options, peft_config={"merge_adapters": True}
        )
        plan = modelmerger.ModelMerger(config).plan()
        assert "weighted of 3 models, of what they change of their base" in str(plan)
        said[plan.writes] = plan.as_dict()["merges"], plan.as_dict()["tensors"][0]["inputs"], plan.layout.files[0].name
    names = ["one", "two", "three"]
    assert said == {
        "adapter": ("updates", names, "adapter_model.safetensors"),
        "model": ("updates", [*names, "qwen2"], "model.safetensors"),
    }
    full = modelmerger.ModelMerger(modelmerger.MergeConfig(strategy="weighted", models=models)).plan()
    assert (full.as_dict()["merges"], full.writes) == ("full weights", "model")


def test_the_config_says_no_more_than_holds_for_all(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, task_type="CAUSAL_LM", lora_dropout=seed / 10)
        for seed in (1, 2)
    ]
    merge(tmp_path / "merged", adapters)
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert "lora_dropout" not in config
    assert config["base_model_name_or_path"] == str(bases.qwen2)
    assert config["target_modules"] == ["down_proj", "o_proj", "q_proj", "v_proj"]


def test_layers_that_only_some_modules_of_a_name_have_are_named_in_full(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases.qwen2, 1, layers_to_transform=[1])
    merge(tmp_path / "merged", [adapter])
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert "model.layers.1.mlp.down_proj" in config["target_modules"]
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, adapter)) < 1e-6


def test_pytorch_files_on_request(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    merge(tmp_path / "merged", three, options={"use_safetensors": False})
    assert (tmp_path / "merged" / "adapter_model.bin").exists()
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_workers_change_no_bit(three: list[Path], tmp_path: Path) -> None:
    for name, options in {"many": {}, "one": {"low_memory_mode": True}}.items():
        merge(tmp_path / name, three, options=options)
    many, one = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("many", "one"))
    assert many == one


@pytest.mark.parametrize("writes", ["adapter", "model"])
def test_a_base_in_memory(bases: SimpleNamespace, three: list[Path], tmp_path: Path, writes: str) -> None:
    """The same bytes as with the base on disk; the merged adapter names the base that its sources name."""
    options = {"preserve_base_model": writes == "adapter"}
    report = merge(tmp_path / "live", three, base_model=load_base(bases.qwen2), options=options)
    merge(tmp_path / "disk", three, base_model=str(bases.qwen2), options=options)
    live, disk = (next((tmp_path / name).glob("*model.safetensors")) for name in ("live", "disk"))
    assert live.read_bytes() == disk.read_bytes()
    assert not [note for note in report.notes if "was trained on" in note.message]
    if writes == "adapter":
        config = json.loads((tmp_path / "live" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(bases.qwen2)


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.points = torch.nn.Conv2d(3, 70, (3, 2)), torch.nn.Conv2d(5, 4, 1)
        self.sound = torch.nn.Conv1d(4, 66, 3)


@pytest.mark.parametrize("writes", ["adapter", "model"])
def test_convolutions(tmp_path: Path, writes: str) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    base = Convolutions()
    (tmp_path / "base").mkdir()
    save_file(base.state_dict(), tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "base" / "config.json").write_text("{}")

    def folded(adapter: Path) -> Deltas:
        model = Convolutions()
        model.load_state_dict(base.state_dict())
        return dict(PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict())

    for seed, targets in enumerate((["image", "points", "sound"], ["image", "sound"])):
        adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=seed + 2, lora_alpha=5, target_modules=targets))
        shake(adapted, seed)
        adapted.save_pretrained(tmp_path / f"{seed}")
    paths = [tmp_path / "0", tmp_path / "1"]
    peft = {"merge_adapters": True, "base_model_path": str(tmp_path / "base")}
    merge(tmp_path / "merged", paths, [1, 2], peft_config=peft, options={"preserve_base_model": writes == "adapter"})
    ours, theirs = (folded(path) for path in paths)
    wanted = {name: ours[name] / 3 + theirs[name] * (2 / 3) for name in ours}
    merged = tmp_path / "merged"
    found = folded(merged) if writes == "adapter" else load_file(merged / "model.safetensors")
    assert distance(found, wanted) < 1e-6
    assert distance(dict(base.state_dict()), wanted) > 1e-2


def test_the_report_has_the_error_of_full_tensors(bases: SimpleNamespace, tmp_path: Path) -> None:
    """Of what changes, not of the tensor: rounding a tensor that hardly changed may lose much of the change."""
    adapters = [
        make_adapter(
            tmp_path / f"{seed}", bases.qwen2, seed, modules_to_save=["norm"], trainable_token_indices=[seed, 7]
        )
        for seed in (1, 2)
    ]
    report = merge(tmp_path / "merged", adapters, options={"torch_dtype": "bfloat16"})
    wanted = combined([deltas(bases.qwen2, path) for path in adapters], [0.5, 0.5])
    found = deltas(bases.qwen2, tmp_path / "merged")
    for name in ("model.norm.weight", "model.embed_tokens.weight"):
        error = float((found[name] - wanted[name]).norm() / wanted[name].norm())
        assert report.observed[name]["relative error"] == pytest.approx(error, rel=1e-3)
        assert error > 1e-4


def test_slerp_of_experts_has_an_angle_for_each_tensor_of_the_files(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [
        make_adapter(tmp_path / f"{seed}", bases.qwen3_moe, seed, target_modules=[], target_parameters=EXPERTS)
        for seed in (1, 2)
    ]
    options = {"preserve_base_model": False, "interpolation_factor": 0.3}
    merge(tmp_path / "merged", adapters, strategy="slerp", options=options)
    before, after = (load_file(path / "model.safetensors") for path in (bases.qwen3_moe, tmp_path / "merged"))
    ours, theirs = (by_peft(bases.qwen3_moe, path) for path in adapters)
    for name, tensor in before.items():
        update = slerped(ours[name].double() - tensor, theirs[name].double() - tensor, 0.3, True)
        assert float((after[name] - tensor - update).norm()) <= 1e-5 * float(tensor.norm())


def test_several_adapters_of_a_model_count_as_one(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """`adapter_names`: their updates are added up, and the model's weight is that of the sum."""
    root = tmp_path / "root"
    shutil.copytree(three[0], root)
    shutil.copytree(three[1], root / "other")
    shutil.copytree(three[2], tmp_path / "second")
    shutil.copytree(three[2], tmp_path / "second" / "other")
    peft = {"merge_adapters": True, "adapter_names": ["default", "other"]}
    merge(tmp_path / "merged", [root, tmp_path / "second"], [3, 1], peft_config=peft)
    wanted = combined([deltas(bases.qwen2, path) for path in three], [0.75, 0.75, 0.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6
