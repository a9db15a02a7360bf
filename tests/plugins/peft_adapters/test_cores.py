"""Strategies by singular values merge updates in the space that these share: as whole matrices would be merged."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import modelmerger
import numpy as np
import pytest
import torch
from core.plugging import install
from modelmerger import ConfigError, MergeConfig, ModelCompatibilityError, NumericError, PluginError
from modelmerger.testing import merge_in_memory
from plugins.peft_adapters.handmade import PREFIX, Made, read_updates, write_adapter, write_base
from plugins.peft_adapters.spoiling import change_tensors
from safetensors.numpy import load_file

SPECTRAL = ("boost", "iso_c", "tsv_m")
LAYER = "model.layers.0.self_attn"
SHAPES = {f"{LAYER}.q_proj": (40, 56), f"{LAYER}.o_proj": (56, 40), f"{LAYER}.v_proj": (3, 40)}
EMBEDDING = {"model.embed_tokens": (48, 40)}


def merge(output: Path, adapters: Sequence[Made], strategy: str, weights: Sequence[float] = (), **config: Any) -> None:
    models = [{"path": str(made.path)} for made in adapters]
    for model, weight in zip(models, weights, strict=False):
        model |= {"weight": weight}
    peft = {"merge_adapters": True}
    modelmerger.merge(
        MergeConfig(strategy=strategy, models=models, output_path=str(output), **{"peft_config": peft, **config})
    )


def of_matrices(
    strategy: str, base: Path, adapters: Sequence[Made], weights: Sequence[float] | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """The update that the same merge makes of whole matrices in float64."""
    stored = {name: torch.from_numpy(value).double() for name, value in load_file(base / "model.safetensors").items()}
    models = [
        {
            name: value + torch.from_numpy(made.updates.get(name.removesuffix(".weight"), np.zeros(tuple(value.shape))))
            for name, value in stored.items()
        }
        for made in adapters
    ]
    merged = merge_in_memory(strategy, models, stored, weights, options={"torch_dtype": "float64", **options})
    return {name.removesuffix(".weight"): (merged[name] - value).numpy() for name, value in stored.items()}


def check(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], most: float = 1e-5) -> None:
    assert found.keys() == {name for name, value in wanted.items() if np.linalg.norm(value) > 1e-9}
    for name, value in found.items():
        assert np.linalg.norm(value - wanted[name]) <= most * np.linalg.norm(wanted[name]), name


def adapters(folder: Path, base: Path, ranks: Sequence[int]) -> list[Made]:
    return [
        write_adapter(folder / f"{seed}", base, SHAPES, seed, rank, alpha=0.1 * rank * (seed + 1))
        for seed, rank in enumerate(ranks)
    ]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", {**SHAPES, **EMBEDDING}, seed=100)


@pytest.mark.parametrize("strategy", SPECTRAL)
@pytest.mark.parametrize("ranks", [(2, 2), (8, 8, 8), (2, 5, 8), (1,), (40, 3)], ids=str)
def test_updates_are_merged_as_whole_matrices_would_be(
    tmp_path: Path, base: Path, strategy: str, ranks: Sequence[int]
) -> None:
    made = adapters(tmp_path, base, ranks)
    merge(tmp_path / "merged", made, strategy)
    check(read_updates(tmp_path / "merged"), of_matrices(strategy, base, made))


@pytest.mark.parametrize("strategy", SPECTRAL)
@pytest.mark.parametrize("factor", ["matched", 0.7])
def test_weights_and_the_scale_count_alike(tmp_path: Path, base: Path, strategy: str, factor: Any) -> None:
    made, weights = adapters(tmp_path, base, (4, 3, 2)), [1.5, 0.0, -0.5]
    merge(tmp_path / "merged", made, strategy, weights, options={"scaling_factor": factor})
    check(read_updates(tmp_path / "merged"), of_matrices(strategy, base, made, weights, scaling_factor=factor))


@pytest.mark.parametrize("strategy", SPECTRAL)
def test_an_adapter_whose_rank_is_less_than_it_says_adds_no_direction(
    tmp_path: Path, base: Path, strategy: str
) -> None:
    """Its second and third directions are one, and the fourth is zero; the other adapter has none of one module."""
    made = adapters(tmp_path, base, (4, 2))

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if ".lora_A." in key:
                tensor[2] = tensor[1]
                tensor[3] = 0
            elif "v_proj" in key:
                tensor.zero_()

    change_tensors(made[0].path, spoil)
    spoilt = {
        name: value.astype(np.float64) for name, value in load_file(made[0].path / "adapter_model.safetensors").items()
    }
    updates = {
        module: 0.1 * spoilt[f"{PREFIX}{module}.lora_B.weight"] @ spoilt[f"{PREFIX}{module}.lora_A.weight"]
        for module in SHAPES
    }
    made[0] = Made(made[0].path, updates)
    merge(tmp_path / "merged", made, strategy)
    found = read_updates(tmp_path / "merged")
    check(found, of_matrices(strategy, base, made))
    assert np.linalg.matrix_rank(found[f"{LAYER}.q_proj"], tol=1e-4) == 4


@pytest.mark.parametrize("strategy", SPECTRAL)
def test_equal_and_opposite_adapters(tmp_path: Path, base: Path, strategy: str) -> None:
    one = adapters(tmp_path, base, (3,))
    merge(tmp_path / "equal", [*one, *one], strategy)
    check(read_updates(tmp_path / "equal"), of_matrices(strategy, base, [*one, *one]))
    merge(tmp_path / "opposite", [*one, *one], strategy, [1.0, -1.0])
    assert all(np.abs(value).max() < 1e-6 for value in read_updates(tmp_path / "opposite").values())


@pytest.mark.parametrize("strategy", ["boost", "iso_c"])
def test_what_rounding_leaves_where_updates_cancel_is_no_direction(tmp_path: Path, base: Path, strategy: str) -> None:
    """One adapter is the other and one small direction more, and is subtracted: that direction is left alone."""
    larger = write_adapter(tmp_path / "larger", base, SHAPES, 1, rank=4, alpha=4.0)
    shutil.copytree(larger.path, tmp_path / "smaller")
    smaller = Made(tmp_path / "smaller", {})

    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if ".lora_A." in key:
                tensor[3] *= 1e-4

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in tensors.items():
            if ".lora_A." in key:
                tensor[3] = 0

    change_tensors(larger.path, shrink)
    change_tensors(smaller.path, cut)
    merge(tmp_path / "merged", [larger, smaller], strategy, [1.0, -1.0])
    stored = load_file(larger.path / "adapter_model.safetensors")
    for module, found in read_updates(tmp_path / "merged").items():
        b, a = (stored[f"{PREFIX}{module}.lora_{letter}.weight"].astype(np.float64) for letter in "BA")
        share = {"boost": 0.8, "iso_c": 1.0}[strategy]  # of two models
        wanted = share * np.outer(b[:, 3], a[3])
        assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_what_is_seen_as_linear_is_merged_by_coefficients_and_a_full_model_is_the_same(
    tmp_path: Path, base: Path
) -> None:
    shapes = {**SHAPES, **EMBEDDING}
    made = [write_adapter(tmp_path / f"{seed}", base, shapes, seed, alpha=0.2) for seed in (1, 2)]
    merge(tmp_path / "merged", made, "boost", options={"preserve_base_model": False, "torch_dtype": "float32"})
    wanted = of_matrices("boost", base, made)
    np.testing.assert_allclose(
        wanted["model.embed_tokens"], sum(one.updates["model.embed_tokens"] for one in made) / 2, atol=1e-12
    )
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "merged"))
    for module in shapes:
        difference = after[f"{module}.weight"].astype(np.float64) - before[f"{module}.weight"]
        np.testing.assert_allclose(difference, wanted[module], atol=2e-6)


def test_a_rank_may_be_given(tmp_path: Path, base: Path) -> None:
    made = adapters(tmp_path, base, (4, 4))
    merge(tmp_path / "merged", made, "boost", options={"merge_method": "svd", "rank": 3})
    wanted = of_matrices("boost", base, made)[f"{LAYER}.q_proj"]
    values = np.linalg.svd(wanted, compute_uv=False)
    found = read_updates(tmp_path / "merged")[f"{LAYER}.q_proj"]
    assert np.linalg.norm(wanted - found) == pytest.approx(np.linalg.norm(values[3:]), rel=1e-4)


def test_what_has_no_core_is_refused_once_with_the_way_out(tmp_path: Path, base: Path) -> None:
    made = adapters(tmp_path, base, (2, 2))
    with pytest.raises(ModelCompatibilityError, match=r"adds factors up, and boost merges .* Use linear") as refusal:
        merge(tmp_path / "merged", made, "boost", options={"merge_method": "peft_linear"})
    assert len(refusal.value.problems) == 1

    def replace(tensors: dict[str, torch.Tensor]) -> None:
        for module in (f"{LAYER}.q_proj", f"{LAYER}.o_proj"):
            for letter in "AB":
                del tensors[f"{PREFIX}{module}.lora_{letter}.weight"]
            tensors[f"{PREFIX}{module}.weight"] = torch.zeros(SHAPES[module])

    for one in made:
        change_tensors(one.path, replace)
    with pytest.raises(ModelCompatibilityError, match=r"is replaced by an adapter, and tsv_m .*merge_adapters: false"):
        merge(tmp_path / "merged", made, "tsv_m")


BROKEN = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(needs_base=True, granularity="whole")

@hookimpl
def merge_tensor(tensors):
    return tensors[0]

@hookimpl
def merge_cores(cores):
    return {answer}
"""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("cores[0]", "gave back one of its inputs"),
        ("cores[0].mul_(2) * 1", "changed its inputs"),
        ("cores[0].float()", r"gave float32 of shape \[4, 4\] where a tensor, float64"),
        ("None", "gave NoneType where a tensor"),
        ("cores[0] * float('nan')", "made a NaN or an infinity"),
    ],
)
def test_a_wrong_answer_is_the_strategys(
    tmp_path: Path, base: Path, distribution: Callable[..., Path], answer: str, message: str
) -> None:
    install(distribution, [("strategy", "broken", BROKEN.format(answer=answer))])
    with pytest.raises(PluginError, match=f"broken.*merge_cores {message}"):
        merge(tmp_path / "merged", adapters(tmp_path, base, (2, 2)), "broken")


def test_an_adapter_with_a_nan_is_still_the_adapters_fault(tmp_path: Path, base: Path) -> None:
    made = adapters(tmp_path, base, (2, 2))
    change_tensors(made[0].path, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(NumericError, match="0"):
        merge(tmp_path / "merged", made, "boost")


def test_strategies_on_elements_still_need_full_models(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match=r"ties works on full models .*merge_adapters: false"):
        merge(tmp_path / "merged", adapters(tmp_path, base, (2, 2)), "ties")
