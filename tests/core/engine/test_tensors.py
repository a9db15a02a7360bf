"""Bits that must not change, and numbers that must not pass: NaN and infinity in inputs, made by the merge, or by rounding."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import numpy as np
import pytest
import torch
from blocks import set_block
from conftest import directory_state, random_tensors, write_model
from modelmerger import ConfigError, MergeConfig, NumericError, PluginError
from modelmerger.testing import MemoryCheckpoint, merge_in_memory, plan_in_memory
from safetensors.torch import load_file

NAN, INF = float("nan"), float("inf")
FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
INTEGERS = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def every_pattern(dtype: torch.dtype) -> torch.Tensor:
    """Every bit pattern of a dtype of one or two bytes; random ones, and the corners, of the wider."""
    count, integer = {1: (1 << 8, np.uint8), 2: (1 << 16, np.uint16), 4: (1 << 12, np.uint32), 8: (1 << 12, np.uint64)}[
        dtype.itemsize
    ]
    if dtype.itemsize <= 2:
        patterns = np.arange(count, dtype=integer)
    else:
        patterns = np.random.default_rng(0).integers(0, np.iinfo(integer).max, count, integer, endpoint=True)
        corners = [0.0, -0.0, 1.0, NAN, INF, -INF, *(torch.finfo(dtype).tiny * k for k in (1, 2**-20, -(2**-20)))]
        patterns[: len(corners)] = torch.tensor(corners, dtype=dtype).numpy().view(integer)
    return torch.from_numpy(patterns).view(dtype)


def finite_patterns(dtype: torch.dtype) -> torch.Tensor:
    patterns = every_pattern(dtype)
    return (
        patterns.view(torch.uint8).view(-1, dtype.itemsize)[patterns.to(torch.float64).isfinite()].view(dtype).view(-1)
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("weighted", {}),
        ("weighted", {"normalize_weights": False}),
        ("sequential", {}),
        ("task_arithmetic", {}),
    ],
    ids=str,
)
def test_weight_one_on_one_model_keeps_every_finite_bit(
    dtype: torch.dtype, strategy: str, options: dict[str, Any]
) -> None:
    """C11"""
    values = finite_patterns(dtype)
    assert bool((values.to(torch.float64).signbit() & (values.to(torch.float64) == 0)).any()) == (
        "fnuz" not in str(dtype)
    )
    base = {"t": torch.ones_like(values.float()).to(dtype)} if strategy == "task_arithmetic" else None

    merged = merge_in_memory(strategy, [{"t": values}], base, [1], options=options)

    assert merged["t"].dtype == dtype
    assert torch.equal(bits(merged["t"]), bits(values))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_weight_one_beside_weight_zero_and_slerp_at_an_end_keep_bits(dtype: torch.dtype) -> None:
    """C11"""
    values = finite_patterns(dtype)
    other = {"t": torch.ones_like(values.float()).to(dtype)}

    assert torch.equal(bits(merge_in_memory("weighted", [other, {"t": values}], weights=[0, 3])["t"]), bits(values))
    for models, t in (([{"t": values}, other], 0), ([other, {"t": values}], 1)):
        merged = merge_in_memory("slerp", models, options={"interpolation_factor": t})
        assert torch.equal(bits(merged["t"]), bits(values))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_allow_nonfinite_keeps_the_bits_of_nan_and_infinity_too(dtype: torch.dtype) -> None:
    values = every_pattern(dtype)

    merged = merge_in_memory("weighted", [{"t": values}], options={"allow_nonfinite": True})

    assert torch.equal(bits(merged["t"]), bits(values))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool, torch.complex64, torch.float8_e8m0fnu], ids=str)
def test_what_is_no_float_keeps_its_bits(dtype: torch.dtype) -> None:
    raw = torch.arange(256, dtype=torch.int16).to(torch.uint8)
    values = (raw % 2).bool() if dtype == torch.bool else raw.view(dtype)

    merged = merge_in_memory("weighted", [{"t": values}, {"t": values.clone()}], options={"torch_dtype": "float32"})

    assert merged["t"].dtype == dtype
    assert torch.equal(bits(merged["t"]), bits(values))


def test_negative_zeros_of_all_models_stay_negative() -> None:
    """C11"""
    zeros = torch.tensor([-0.0, 0.0])

    merged = merge_in_memory("weighted", [{"t": zeros}, {"t": zeros.clone()}], weights=[0.3, 0.7])["t"]

    assert merged.signbit().tolist() == [True, False]


@pytest.mark.parametrize("strategy", ["weighted", "sequential", "slerp", "task_arithmetic"])
def test_nonfinite_inputs_are_named_and_counted(strategy: str, models: SimpleNamespace) -> None:
    """C1"""
    damaged = {name: tensor.clone() for name, tensor in models.tensors["b"].items()}
    damaged["model.layers.1.mlp.weight"][3, :5] = torch.tensor([NAN, NAN, INF, -INF, INF])
    write_model(models.b, damaged)
    before = directory_state(models.folder)
    config = {"strategy": strategy, "models": [{"path": str(models.a)}, {"path": str(models.b), "weight": 0.5}]}
    config |= {"base_model": str(models.base)} if strategy == "task_arithmetic" else {}

    with pytest.raises(NumericError) as caught:
        modelmerger.merge(MergeConfig(**{**config, "output_path": str(models.output)}))

    (problem,) = caught.value.problems
    assert problem.tensor == "model.layers.1.mlp.weight"
    assert problem.where == str(models.b)
    assert "'b' holds 2 NaNs and 3 infinities" in problem.message
    assert caught.value.exit_status == 5
    assert not models.output.exists()
    assert {k: v for k, v in (directory_state(models.folder) or {}).items() if not k.startswith(".")} == before


def test_every_damaged_model_of_a_tensor_is_named() -> None:
    models = [{"t": torch.tensor([1.0, bad])} for bad in (NAN, 2.0, INF)]

    with pytest.raises(NumericError) as caught:
        merge_in_memory("weighted", models)

    assert [p.message.split(".")[0] for p in caught.value.problems] == [
        "'model_0' holds 1 NaN",
        "'model_2' holds 1 infinity",
    ]


def test_an_infinity_that_clamping_would_hide_is_an_error() -> None:
    """C1, C2"""
    tensors = [{"t": torch.tensor([1.0, INF])}, {"t": torch.tensor([1.0, 2.0])}]

    with pytest.raises(NumericError, match="'model_0' holds 1 infinity"):
        merge_in_memory("task_arithmetic", tensors[:1], tensors[1], options={"clamp_weights": True})


def test_a_nan_in_the_base_is_an_error_and_an_input_of_coefficient_zero_is_not_read() -> None:
    """C1"""
    good, bad = {"t": torch.tensor([1.0, 2.0])}, {"t": torch.tensor([1.0, NAN])}
    with pytest.raises(NumericError, match="'base' holds 1 NaN"):
        merge_in_memory("task_arithmetic", [good], bad, [0.5])

    for strategy, models, base, weights in (
        ("task_arithmetic", [good], bad, [1]),
        ("weighted", [good, bad], None, [1, 0]),
    ):
        merge = plan_in_memory(strategy, models, base, weights)
        assert torch.equal(merge.merge()["t"], good["t"])
        assert merge.checkpoints[1].reads == []


def test_an_overflow_of_the_merge_itself_is_an_error_that_says_so() -> None:
    huge = {"t": torch.tensor([1.0, 1e308], dtype=torch.float64)}

    with pytest.raises(
        NumericError, match=r"^t: all inputs are finite, and the merge itself made a NaN or an infinity"
    ):
        merge_in_memory("weighted", [huge, huge], options={"normalize_weights": False})


def test_numbers_near_the_largest_of_one_sign_are_no_overflow() -> None:
    huge = {"t": torch.tensor([1.5e308, 1.6e308], dtype=torch.float64)}

    assert torch.equal(merge_in_memory("weighted", [huge])["t"], huge["t"])


LARGEST = {
    "bfloat16": (torch.float32, 3.3895e38, 3.4e38),
    "float16": (torch.float32, 65519.0, 65520.0),
    "float32": (torch.float64, 3.4028235e38, 3.4029e38),
}


@pytest.mark.parametrize("written", LARGEST)
def test_an_overflow_of_rounding_is_an_error_that_names_the_dtype(written: str) -> None:
    stored, fits, too_large = LARGEST[written]

    merged = merge_in_memory("weighted", [{"t": torch.tensor([-fits], dtype=stored)}], options={"torch_dtype": written})
    assert float(merged["t"]) == -torch.finfo(getattr(torch, written)).max
    for value in (too_large, -too_large):
        model = {"fine": torch.ones(2), "t": torch.tensor([1.0, value], dtype=stored)}
        with pytest.raises(NumericError, match=r"^t: all inputs are finite, and the values do not fit in B?F\d\d, "):
            merge_in_memory("weighted", [model], options={"torch_dtype": written})


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.itemsize == 1], ids=str)
def test_float8_overflows_are_errors_and_do_not_stop_at_the_largest_number(dtype: torch.dtype) -> None:
    largest = torch.tensor([torch.finfo(dtype).max, -torch.finfo(dtype).max]).to(dtype)

    half_unit_above = merge_in_memory(
        "weighted", [{"t": largest}], weights=[1.01], options={"normalize_weights": False}
    )
    assert torch.equal(bits(half_unit_above["t"]), bits(largest))
    with pytest.raises(NumericError, match="the values do not fit in F8_E"):
        merge_in_memory("weighted", [{"t": largest}], weights=[1.2], options={"normalize_weights": False})


def test_allow_nonfinite_lets_everything_through() -> None:
    models = [{"t": torch.tensor([1.0, NAN, INF, 60000.0])}, {"t": torch.tensor([1.0, 1.0, -INF, 60000.0])}]

    merged = merge_in_memory(
        "weighted",
        models,
        options={"allow_nonfinite": True, "normalize_weights": False, "torch_dtype": "float16"},
    )["t"]

    assert merged[0] == 2
    assert merged[1:3].isnan().all()
    assert merged[3] == INF


def test_slerp_has_no_angle_to_a_nan_even_where_nan_may_pass() -> None:
    models = [{"t": torch.tensor([1.0, NAN])}, {"t": torch.tensor([1.0, 1.0])}]

    with pytest.raises(
        NumericError, match=r"'model_0' holds 1 NaN\. Repair the model: the coefficients follow from"
    ) as e:
        merge_in_memory("slerp", models, options={"allow_nonfinite": True})
    assert "allow_nonfinite" not in str(e.value)


PICKY = """
from attrs import frozen
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def measure_tensor(tensors):
    if tensors[0].isnan().any():
        raise ValueError("cannot count NaN")
    return tensors[0].double().sum()

@hookimpl
def merge_tensor(tensors):
    return tensors[0] * 1

@hookimpl
def finish_tensor(merged):
    merged.mul_(1000)
"""
ZERO = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2), gram=True)

@hookimpl
def find_coefficients(gram):
    return None if gram is None else [0.0, 0.0]
"""


@pytest.fixture
def _two_strategies(distribution: Callable[..., Path]) -> None:
    entry_points = "[modelmerger.strategies]\npicky = acme_picky\nzero = acme_zero\n"
    distribution("acme", "1.0", entry_points, acme_picky=PICKY, acme_zero=ZERO)


@pytest.mark.usefixtures("_two_strategies")
def test_a_strategy_is_not_shown_a_nan() -> None:
    with pytest.raises(NumericError, match="'model_0' holds 1 NaN"):
        merge_in_memory("picky", [{"t": torch.tensor([1.0, NAN])}])


@pytest.mark.usefixtures("_two_strategies")
def test_what_finishing_makes_is_checked_as_well() -> None:
    assert merge_in_memory("picky", [{"t": torch.tensor([3.0]).half()}])["t"] == 3000
    with pytest.raises(NumericError, match="the values do not fit in F16"):
        merge_in_memory("picky", [{"t": torch.tensor([300.0]).half()}])
    with pytest.raises(PluginError, match="finish_tensor made a NaN or an infinity"):
        merge_in_memory("picky", [{"t": torch.tensor([1e306], dtype=torch.float64)}])


def test_a_strategy_finishes_only_what_it_wants_to(distribution: Callable[..., Path]) -> None:
    wants = "@hookimpl\ndef wants_finish(options):\n    return options.finish\n"
    options = "from attrs import frozen\n\n@frozen\nclass Options:\n    finish: bool\n"
    broken = "@hookimpl\ndef wants_finish():\n    return 'yes'\n"
    entry_points = "[modelmerger.strategies]\nchoosy = acme_choosy\nvague = acme_vague\n"
    distribution("choosers", "1.0", entry_points, acme_choosy=PICKY + options + wants, acme_vague=PICKY + broken)
    models = [{"t": torch.tensor([3.0])}]

    assert merge_in_memory("choosy", models, options={"finish": True})["t"] == 3000
    assert merge_in_memory("choosy", models, options={"finish": False})["t"] == 3
    with pytest.raises(PluginError, match="wants_finish gave yes instead of True or False"):
        merge_in_memory("vague", models)


@pytest.mark.usefixtures("_two_strategies")
def test_nothing_is_never_written_as_something() -> None:
    """Where all coefficients are zero there is no first product to begin with."""
    models = [random_tensors(1), random_tensors(2)]

    with pytest.raises(NumericError, match="every coefficient of this tensor is zero"):
        merge_in_memory("zero", models)
    with pytest.raises(ConfigError, match="every coefficient of this merge is zero"):
        merge_in_memory("weighted", models, weights=[0, 0], options={"normalize_weights": False})


WHOLE = """
import weakref
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), granularity="whole")
made, alive = [], []

@hookimpl
def merge_tensor(tensors):
    alive.append(sum(result() is not None for result in made))
    merged = tensors[0].numpy() * 2
    made.append(weakref.ref(merged))
    return torch.from_numpy(merged)
"""


def test_a_tensor_that_is_merged_whole_goes_before_the_next_one_is_made(
    distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether tensors share a block, or each of them lies in many."""
    distribution("acme", "1.0", "[modelmerger.strategies]\nwhole = acme_whole\n", acme_whole=WHOLE)
    model = {name: torch.rand(70, 90) for name in "abcd"}
    merge = plan_in_memory("whole", [model])
    strategy = sys.modules["acme_whole"]

    for block in (1 << 24, 1 << 10):
        set_block(monkeypatch, block)
        strategy.made.clear()
        strategy.alive.clear()
        merged = merge.merge(workers=1)

        assert strategy.alive == [0, 0, 0, 0]
        assert all(torch.equal(merged[name], tensor * 2) for name, tensor in model.items())


def test_reads_are_of_the_models_own_bytes(models: SimpleNamespace) -> None:
    """A stored model comes out of the disk and into the merge with the bits that another reader finds."""
    modelmerger.merge(
        MergeConfig(strategy="weighted", models=[{"path": str(models.a)}], output_path=str(models.output))
    )

    merged = load_file(models.output / "model.safetensors")
    assert merged.keys() == models.tensors["a"].keys()
    assert all(torch.equal(bits(merged[name]), bits(tensor)) for name, tensor in models.tensors["a"].items())


def test_a_checkpoint_with_another_name_for_a_tensor_is_read_under_it() -> None:
    """Where the model ties its LM head to the embedding."""
    untied = {"embed_tokens.weight": torch.ones(3, 2), "lm_head.weight": torch.full((3, 2), 2.0)}
    tied = MemoryCheckpoint(
        "model_1", {"embed_tokens.weight": torch.full((3, 2), 5.0)}, aliases={"lm_head.weight": "embed_tokens.weight"}
    )

    merged = merge_in_memory("weighted", [untied, tied], weights=[0.5, 0.5])

    assert torch.equal(merged["embed_tokens.weight"], torch.full((3, 2), 3.0))
    assert torch.equal(merged["lm_head.weight"], torch.full((3, 2), 3.5))
