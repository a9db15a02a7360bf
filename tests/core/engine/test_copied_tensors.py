"""Tensors that can only be taken over: integers, booleans, and the weights of quantised models."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from conftest import CONFIG, write_model
from modelmerger import MergeConfig, ModelCompatibilityError, Watch
from modelmerger.engine import copied_tensors as exact
from modelmerger.engine.copied_tensors import check_exact_tensors
from modelmerger.testing import MemoryCheckpoint, Planned, plan_in_memory
from safetensors.torch import load_file

QUANTISED = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
IDS = torch.arange(1000)


def of(*models: dict[str, torch.Tensor], config: dict[str, Any] | None = None, **keywords: Any) -> Planned:
    checkpoints = [MemoryCheckpoint(f"model_{i}", tensors, config) for i, tensors in enumerate(models)]
    return plan_in_memory("weighted", checkpoints, **keywords)


def test_equal_bits_pass_and_are_read_once_for_each_model() -> None:
    merge = of({"ids": IDS}, {"ids": IDS.clone()}, {"ids": IDS.clone()})

    assert check_exact_tensors(merge.plan, merge.checkpoints).bytes == 3 * IDS.nbytes
    assert [checkpoint.bytes_read for checkpoint in merge.checkpoints] == [IDS.nbytes] * 3


def test_the_plan_counts_what_is_compared_and_then_copied() -> None:
    merge = of({"ids": IDS}, {"ids": IDS.clone()}, {"ids": IDS.clone()})

    assert torch.equal(merge.merge()["ids"], IDS)
    assert sum(checkpoint.bytes_read for checkpoint in merge.checkpoints) == merge.plan.bytes_read == 4 * IDS.nbytes


def test_a_single_model_is_compared_with_nothing() -> None:
    merge = of({"ids": IDS})

    assert check_exact_tensors(merge.plan, merge.checkpoints).bytes == 0
    assert merge.plan.bytes_read == IDS.nbytes


@pytest.mark.parametrize("place", [0, 499, 999])
def test_every_model_with_other_bits_is_named(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "COMPARED", 128)
    changed = IDS.clone()
    changed[place] += 1
    merge = of({"t.weight": IDS}, {"t.weight": changed}, {"t.weight": IDS}, {"t.weight": changed})

    with pytest.raises(ModelCompatibilityError) as caught:
        check_exact_tensors(merge.plan, merge.checkpoints)

    assert [str(problem) for problem in caught.value.problems] == [
        f"model_{i}: t.weight: holds I64 numbers, which can only be taken over, and 'model_{i}' differs from "
        "'model_0'. Give every model the donor's tensor."
        for i in (1, 3)
    ]
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("bn.num_batches_tracked", torch.tensor(1), torch.tensor(9)),
        ("embeddings.position_ids", torch.arange(6).view(1, 6), torch.arange(6).view(1, 6) + 2),
        ("attn.relative_position_index", torch.arange(9).view(3, 3), torch.arange(9).view(3, 3) + 1),
        ("attn.bias", torch.ones(1, 1, 3, 3, dtype=torch.bool), torch.zeros(1, 1, 3, 3, dtype=torch.bool)),
    ],
)
def test_counters_and_positions_that_differ_are_the_donors_and_that_is_noted_once(
    name: str, ours: torch.Tensor, theirs: torch.Tensor
) -> None:
    weight = torch.ones(2)
    merge = of({"w": weight, name: ours, "z.steps": ours}, {"w": weight, name: theirs, "z.steps": theirs})

    compared = check_exact_tensors(merge.plan, merge.checkpoints)

    (note,) = compared.notes
    assert note.severity == "note"
    assert str(note).startswith(f"model_0: {name}: 2 tensors of integers or booleans differ between the models")
    assert torch.equal(merge.merge()[name], ours)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("a.qweight", (8, 4)), ("a.weight", (16, 1)), ("mlp.gate_up_proj_blocks", (2, 4, 4)), ("a.weight_packed", (6,))],
)
def test_integer_weights_that_differ_are_refused_as_quantised_in_one_problem(name: str, shape: tuple[int, ...]) -> None:
    def model(step: int) -> dict[str, torch.Tensor]:
        packed = torch.full(shape, step, dtype=torch.uint8)
        return {f"layers.{i}.{name}": packed for i in range(3)} | {"layers.0.g_idx": torch.arange(4) + step}

    merge = of(model(0), model(1))

    with pytest.raises(ModelCompatibilityError) as caught:
        check_exact_tensors(merge.plan, merge.checkpoints)

    (problem,) = caught.value.problems
    assert str(problem).startswith(f"model_1: layers.0.{name}: 3 tensors look quantised (U8)")
    assert "'model_1' differs from 'model_0' here and in 3 more tensors. Dequantise the models first." in str(problem)


@pytest.mark.parametrize("scale", ["p.weight_scale", "p.weight_scale_inv", "p.scale_weight", "p.scales"])
def test_float8_beside_scales_is_quantised_without_a_config_too(scale: str) -> None:
    def model(step: float) -> dict[str, torch.Tensor]:
        return {"p.weight": torch.full((2, 2), step).to(torch.float8_e4m3fn), scale: torch.ones(1)}

    merge = of(model(1.0), model(2.0))

    with pytest.raises(ModelCompatibilityError, match=r"1 tensor looks quantised \(F8_E4M3\).*Dequantise"):
        check_exact_tensors(merge.plan, merge.checkpoints)


def test_zeros_of_other_sign_in_a_quantised_scale_are_other_bits() -> None:
    first, second = torch.tensor([0.0, 1.0]).to(torch.float8_e5m2), torch.tensor([-0.0, 1.0]).to(torch.float8_e5m2)
    merge = of({"w": first}, {"w": second}, config=QUANTISED)

    with pytest.raises(ModelCompatibilityError, match=r"w: holds quantised weights \(gptq\), .* Dequantise the models"):
        check_exact_tensors(merge.plan, merge.checkpoints)


def test_float8_of_a_model_that_is_not_quantised_is_merged_like_any_float() -> None:
    merge = of(
        {"w": torch.tensor([1.0, 2.0]).to(torch.float8_e5m2)}, {"w": torch.tensor([3.0, 2.0]).to(torch.float8_e5m2)}
    )

    assert check_exact_tensors(merge.plan, merge.checkpoints).bytes == 0
    assert merge.merge()["w"].float().tolist() == [2, 2]


def test_a_model_of_weight_zero_may_differ() -> None:
    merge = of({"ids": IDS}, {"ids": IDS + 1}, weights=[1, 0])

    assert check_exact_tensors(merge.plan, merge.checkpoints).bytes == 0


def quantised(directory: Path, seed: int, packed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "layers.0.qweight": torch.arange(24, dtype=torch.int32) + packed,
        "layers.0.norm": torch.randn(8, generator=generator).half(),
        "layers.0.mask": torch.tensor([True, False]),
    }
    return write_model(directory, tensors, CONFIG | QUANTISED)


def test_models_with_the_same_quantised_weights_merge_what_is_not(tmp_path: Path) -> None:
    paths = [quantised(tmp_path / name, seed) for seed, name in enumerate("ab")]

    modelmerger.merge(
        MergeConfig(
            strategy="weighted", models=[{"path": str(path)} for path in paths], output_path=str(tmp_path / "merged")
        )
    )

    first, second, merged = (load_file(path / "model.safetensors") for path in (*paths, tmp_path / "merged"))
    for name in ("layers.0.qweight", "layers.0.mask"):
        assert torch.equal(merged[name], first[name])
        assert merged[name].dtype == first[name].dtype
    mean = (first["layers.0.norm"].double() + second["layers.0.norm"].double()) / 2
    assert torch.equal(merged["layers.0.norm"], mean.half())


def test_different_quantised_weights_fail_with_status_3_before_anything_is_written(
    tmp_path: Path, command: Callable[..., SimpleNamespace]
) -> None:
    paths = [quantised(tmp_path / name, seed, packed=seed) for seed, name in enumerate("ab")]
    (tmp_path / "merge.yaml").write_text(
        f"strategy: weighted\nmodels: [{{path: {paths[0]}}}, {{path: {paths[1]}}}]\noutput_path: {tmp_path}/merged\n"
    )
    before = sorted(tmp_path.iterdir())

    result = command("merge", tmp_path / "merge.yaml")

    assert result.status == 3
    assert f"{paths[1]}: layers.0.qweight: holds quantised weights (gptq)" in result.err
    assert sorted(tmp_path.iterdir()) == before


def test_progress_counts_the_comparison_too(tmp_path: Path) -> None:
    paths = [quantised(tmp_path / name, seed) for seed, name in enumerate("abc")]
    seen: list[tuple[int, int]] = []

    modelmerger.merge(
        MergeConfig(
            strategy="weighted", models=[{"path": str(path)} for path in paths], output_path=str(tmp_path / "merged")
        ),
        Watch(progress=lambda done, total: seen.append((done, total))),
    )

    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
