"""Experts that one model holds in two tensors a layer and another one by one: merged as two of one layout are, bit for bit."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import MergeConfig, ModelCompatibilityError, NumericError, merge, verify
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]
COUNT, INNER, OUTER = 3, 4, 6
PARENTS = [f"model.layers.{i}.mlp.experts" for i in range(2)]
OTHERS: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (24, OUTER),
    "model.layers.0.mlp.gate.weight": (COUNT, OUTER),
}


def single(seed: int, leaves: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> Tensors:
    gate, up, down = leaves
    shapes: dict[str, tuple[int, ...]] = dict(OTHERS)
    for parent, expert in itertools.product(PARENTS, range(COUNT)):
        shapes |= {f"{parent}.{expert}.{leaf}.weight": (INNER, OUTER) for leaf in (gate, up)}
        shapes[f"{parent}.{expert}.{down}.weight"] = (OUTER, INNER)
    return random_tensors(seed, shapes=shapes)


def fused(tensors: Tensors) -> Tensors:
    """As transformers joins them: MergeModulelist(0), Concatenate(1)."""

    def stacked(parent: str, leaf: str) -> torch.Tensor:
        return torch.stack([tensors[f"{parent}.{expert}.{leaf}.weight"] for expert in range(COUNT)])

    made = {name: tensors[name] for name in OTHERS}
    for parent in PARENTS:
        made[f"{parent}.gate_up_proj"] = torch.cat([stacked(parent, "gate_proj"), stacked(parent, "up_proj")], dim=1)
        made[f"{parent}.down_proj"] = stacked(parent, "down_proj")
    return made


def renamed(tensors: Tensors) -> Tensors:
    """As files of Mixtral have them."""
    for new, old in (("block_sparse_moe", "mlp"), ("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
        tensors = {name.replace(f".{old}.", f".{new}."): tensor for name, tensor in tensors.items()}
    return tensors


def merged(folder: Path, *models: Tensors, **more: Any) -> tuple[Tensors, list[str]]:
    folder.mkdir()
    paths = [write_model(folder / f"m{i}", tensors) for i, tensors in enumerate(models)]
    output = folder / "merged"
    entries = [{"path": str(path), "weight": 0.3 + 0.4 * i} for i, path in enumerate(paths)]
    report = merge(MergeConfig(**{"strategy": "weighted", "models": entries, "output_path": str(output), **more}))
    verify(output)
    return load_file(output / "model.safetensors"), [str(note) for note in report.notes if "experts" in note.message]


def assert_same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("old", [False, True], ids=["today's names", "Mixtral's names"])
def test_one_of_each_is_merged_as_two_of_one_layout(tmp_path: Path, old: bool) -> None:
    a, b = single(1), single(2)
    apart = renamed if old else dict
    of_singles, none = merged(tmp_path / "singles", apart(a), apart(b))
    of_fused, _ = merged(tmp_path / "fused", fused(a), fused(b))
    assert none == []

    to_single, (taken,) = merged(tmp_path / "to single", apart(a), fused(b))
    to_fused, (put,) = merged(tmp_path / "to fused", fused(a), apart(b))

    assert_same(to_single, of_singles)
    assert_same(to_fused, of_fused)
    assert "m1: the experts of 2 layers are taken apart, as 'm0' holds them." in taken
    assert "m1: the experts of 2 layers are put together, as 'm0' holds them." in put


@pytest.mark.parametrize("moved", [False, True], ids=["same place", "other place"])
def test_one_by_one_in_both_under_other_words(tmp_path: Path, moved: bool) -> None:
    def other(tensors: Tensors) -> Tensors:
        new = renamed(tensors)
        return new if moved else {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in new.items()}

    a, b = single(1), single(2)
    plain, _ = merged(tmp_path / "plain", a, b)
    to_ours, (note, *_) = merged(tmp_path / "ours", a, other(b))
    to_theirs, (back, *_) = merged(tmp_path / "theirs", other(a), b)
    assert_same(to_ours, plain)
    assert_same(to_theirs, other(plain))
    assert "m1: the experts of 2 layers under the names of 'm0': gate_proj, up_proj, down_proj for w1, w3, w2." in note
    assert "w1, w3, w2 for gate_proj, up_proj, down_proj." in back


@pytest.mark.parametrize("strategy", ["slerp", "task_arithmetic", "ties"])
def test_other_strategies_see_the_donors_layout_too(tmp_path: Path, strategy: str) -> None:
    a, b, base = single(1), single(2), single(3)
    based = {} if strategy == "slerp" else {"base_model": str(write_model(tmp_path / "base", fused(base)))}
    more = {"strategy": strategy, **based}
    expected, _ = merged(tmp_path / "fused", fused(a), fused(b), **more)

    found, _ = merged(tmp_path / "mixed", fused(a), b, **more)

    assert_same(found, expected)


def test_a_nan_in_pieces_names_the_model(tmp_path: Path) -> None:
    b = single(2)
    b[f"{PARENTS[1]}.2.up_proj.weight"][1, 1] = float("nan")
    with pytest.raises(NumericError, match=r"model\.layers\.1\.mlp\.experts\.gate_up_proj: 'm1' holds 1 NaN"):
        merged(tmp_path / "nan", fused(single(1)), b)


def transposed(tensors: Tensors) -> Tensors:
    """As Llama 4 holds them."""
    return {n: t.transpose(1, 2).contiguous() if t.dim() == 3 else t for n, t in fused(tensors).items()}


def with_biases(tensors: Tensors) -> Tensors:
    return fused(tensors) | {f"{parent}.gate_up_proj_bias": torch.ones(COUNT, 2 * INNER) for parent in PARENTS}


def with_fewer(tensors: Tensors) -> Tensors:
    return {name: tensor[:2] if tensor.dim() == 3 else tensor for name, tensor in fused(tensors).items()}


def half_fused(tensors: Tensors) -> Tensors:
    kept = {n: t for n, t in tensors.items() if n.startswith(PARENTS[0])}
    return kept | {n: t for n, t in fused(tensors).items() if not n.startswith(PARENTS[0])}


@pytest.mark.parametrize("change", [transposed, with_biases, with_fewer, half_fused])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_proven_stays_one_error(tmp_path: Path, change: Any, first: bool) -> None:
    models = [change(single(1)), single(2)]
    with pytest.raises(ModelCompatibilityError) as refusal:
        merged(tmp_path / "refused", *(models if first else reversed(models)))
    (problem,) = refusal.value.problems
    assert "has the experts of a layer in one tensor" in problem.message


def test_files_that_transformers_writes_either_way_merge(tmp_path: Path) -> None:
    import transformers as t

    sizes = {
        "vocab_size": 24,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    torch.manual_seed(0)
    for number, (model, layout) in enumerate(
        [
            (
                t.MixtralForCausalLM(t.MixtralConfig(**sizes, num_local_experts=2, intermediate_size=4)),
                "block_sparse_moe",
            ),
            (t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**sizes, num_experts=2, moe_intermediate_size=4)), "mlp"),
        ]
    ):
        model.save_pretrained(tmp_path / f"single{number}")
        model.save_pretrained(tmp_path / f"fused{number}", save_original_format=False)
        kinds = {kind: load_file(tmp_path / f"{kind}{number}/model.safetensors") for kind in ("single", "fused")}
        assert "model.layers.0.mlp.experts.gate_up_proj" in kinds["fused"]
        assert any(f".{layout}.experts.1." in name for name in kinds["single"])
        for donor, other in (("single", "fused"), ("fused", "single")):
            paths = [str(tmp_path / f"{kind}{number}") for kind in (donor, other)]
            output = tmp_path / f"{donor}{number}-merged"
            entries = [{"path": path} for path in paths]
            merge(MergeConfig(strategy="weighted", models=entries, output_path=str(output)))
            assert_same(load_file(output / "model.safetensors"), kinds[donor])  # of two equal models
