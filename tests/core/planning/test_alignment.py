"""Which tensor goes with which, and what does not fit: said in the plan phase, before anything is written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from conftest import CONFIG, directory_state, random_tensors, write_model
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, NumericError
from modelmerger.planning.alignment import align
from modelmerger.testing import MemoryCheckpoint, Planned, merge_in_memory, plan_in_memory
from safetensors.torch import load_file

NO_CONFIGS: Mapping[int, dict[str, Any]] = MappingProxyType({})
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def messages(
    *models: dict[str, torch.Tensor], donor: int = 0, configs: Mapping[int, dict[str, Any]] = NO_CONFIGS
) -> list[str]:
    checkpoints = [MemoryCheckpoint(f"m{i}", tensors, configs.get(i)) for i, tensors in enumerate(models)]
    return [str(problem) for problem in align(checkpoints, donor)[1]]


def test_the_donor_gives_names_order_shapes_and_dtypes() -> None:
    first = {"b": torch.ones(2), "a": torch.ones(3).half()}
    second = {"a": torch.ones(3).bfloat16(), "b": torch.ones(2, dtype=torch.float64)}

    for donor, expected in ((0, [("b", "F32"), ("a", "F16")]), (1, [("a", "BF16"), ("b", "F64")])):
        aligned, problems = align([MemoryCheckpoint("m0", first), MemoryCheckpoint("m1", second)], donor)
        assert [(tensor.name, tensor.info.dtype) for tensor in aligned] == expected
        assert problems == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (torch.ones(2, 3), torch.ones(3, 2), "m1: t: has shape [3, 2] here and [2, 3] in 'm0'. Only equal shapes"),
        (torch.ones(6), torch.ones(2, 3), "m1: t: has shape [2, 3] here and [6] in 'm0'."),
        (torch.ones(1), torch.tensor(1.0), "m1: t: has shape [] here and [1] in 'm0'."),
        (torch.ones(0, 3), torch.ones(3, 0), "m1: t: has shape [3, 0] here and [0, 3] in 'm0'."),
        (torch.ones(2), torch.ones(2).long(), "m1: t: is I64 here and F32 in 'm0'. Convert one of the models first."),
        (torch.ones(2).long(), torch.ones(2), "m1: t: is F32 here and I64 in 'm0'."),
    ],
    ids=str,
)
def test_shapes_ranks_and_families_that_differ_are_named_with_both_values(
    ours: torch.Tensor, theirs: torch.Tensor, expected: str
) -> None:
    (message,) = messages({"t": ours, "u": torch.ones(1)}, {"t": theirs, "u": torch.ones(1)})

    assert message.startswith(expected)


def test_every_mismatch_of_every_model_is_said_at_once() -> None:
    found = messages(
        {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)},
        {"a": torch.ones(3).long(), "b": torch.ones(2), "c": torch.ones(2)},
        {"a": torch.ones(2), "b": torch.ones(2), "d": torch.ones(2)},
    )

    assert [line.split(". ")[0] for line in found] == [
        "m1: a: has shape [3] here and [2] in 'm0'",
        "m1: a: is I64 here and F32 in 'm0'",
        "m2: c: 'm0' has this tensor and 'm2' lacks it",
        "m2: d: 'm2' has this tensor and 'm0' lacks it",
    ]


def test_equal_scalars_and_empty_tensors_pass_through() -> None:
    first = {"scalar": torch.tensor(1.0), "empty": torch.ones(0, 7), "none": torch.ones(0)}
    second = {"scalar": torch.tensor(2.0), "empty": torch.ones(0, 7), "none": torch.ones(0)}

    for strategy in ("weighted", "slerp"):
        merged = merge_in_memory(strategy, [first, second])
        assert merged["scalar"].tolist() == 1.5
        assert merged["empty"].shape == (0, 7)
        assert merged["none"].shape == (0,)


def test_quantised_models_that_do_not_fit_are_said_to_be_quantised() -> None:
    found = messages(
        {"w": torch.ones(4, 4)},
        {"w": torch.ones(8, dtype=torch.uint8), "w.absmax": torch.ones(1)},
        configs={1: {"quantization_config": {"quant_method": "bitsandbytes"}}},
    )

    (line,) = found
    assert line.startswith("m1: holds quantised weights (bitsandbytes), which can only be taken over")


def test_a_quantised_model_without_config_is_told_by_its_tensors() -> None:
    plain = {"a.weight": torch.ones(4, 4), "b.weight": torch.ones(4, 4), "norm.weight": torch.ones(4)}
    packed = {name: torch.ones(8, 1, dtype=torch.uint8) if name != "norm.weight" else plain[name] for name in plain}

    (line,) = messages(plain, packed)

    assert line.startswith("m1: 2 tensors look quantised (U8) without a quantization_config")
    assert line.endswith("Dequantise it first.")


def test_a_config_that_says_quantised_is_not_believed_where_all_weights_are_floats() -> None:
    found = messages({"w": torch.ones(4)}, {"w": torch.ones(5)}, configs={1: {"quantization_config": {"bits": 4}}})

    assert [line.split(" here")[0] for line in found] == ["m1: w: has shape [5]"]


def test_a_tensor_that_only_one_model_has_fails_before_anything_is_written(
    models: SimpleNamespace, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    write_model(models.b, models.tensors["b"] | {"extra.weight": torch.ones(3)})
    import json

    (models.folder / "merge.json").write_text(json.dumps(config))
    before = directory_state(models.folder)

    result = command("merge", models.folder / "merge.json")

    assert result.status == 3
    assert result.err.startswith(f"error: {models.b}: extra.weight: 'b' has this tensor and 'a' lacks it.")
    assert directory_state(models.folder) == before


def test_a_mismatch_is_found_from_headers_alone(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """No tensor is read: the data may even be damaged."""
    write_model(models.b, models.tensors["b"] | {"model.norm.weight": torch.full((17,), float("nan"))})

    with pytest.raises(ModelCompatibilityError, match=r"model.norm.weight: has shape \[17\] here and \[16\] in 'a'"):
        ModelMerger(MergeConfig(**config)).plan()


def tied_and_untied(folder: Path) -> SimpleNamespace:
    tensors = random_tensors(1)
    untied = {**random_tensors(2), HEAD: random_tensors(3, shapes={HEAD: (24, 16)})[HEAD]}
    return SimpleNamespace(
        tied=write_model(folder / "tied", tensors, CONFIG),
        untied=write_model(folder / "untied", untied, CONFIG | {"tie_word_embeddings": False}),
        embedding=tensors[EMBEDDING],
        head=untied[HEAD],
    )


def merged_of(folder: Path, donor: Path, other: Path) -> dict[str, torch.Tensor]:
    modelmerger.merge(
        MergeConfig(
            strategy="weighted", models=[{"path": str(donor)}, {"path": str(other)}], output_path=str(folder / "merged")
        )
    )
    return load_file(folder / "merged" / "model.safetensors")


def test_a_tied_model_lends_its_embedding_to_the_head_of_an_untied_donor(tmp_path: Path) -> None:
    pair = tied_and_untied(tmp_path)

    merged = merged_of(tmp_path, pair.untied, pair.tied)

    assert torch.equal(merged[HEAD], ((pair.head.double() + pair.embedding.double()) / 2).bfloat16())


def test_an_untied_model_has_no_place_for_its_head_in_a_tied_donor(tmp_path: Path) -> None:
    pair = tied_and_untied(tmp_path)

    with pytest.raises(ModelCompatibilityError) as caught:
        merged_of(tmp_path, pair.tied, pair.untied)

    assert any(
        p.tensor == HEAD
        and f"'untied' has an LM head of its own here, other than its {EMBEDDING}, and 'tied' ties the two" in p.message
        for p in caught.value.problems
    )
    assert not (tmp_path / "merged").exists()


def test_tied_models_give_a_tied_model(tmp_path: Path) -> None:
    paths = [write_model(tmp_path / name, random_tensors(seed)) for seed, name in enumerate("ab")]

    assert HEAD not in merged_of(tmp_path, *paths)


@pytest.mark.parametrize("tie", [False, None])
def test_a_head_is_missing_only_where_the_config_does_not_tie_it(tmp_path: Path, tie: bool | None) -> None:
    """`tie_word_embeddings` left out means tied when the file has no head."""
    pair = tied_and_untied(tmp_path)
    config = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
    write_model(
        pair.tied,
        load_file(pair.tied / "model.safetensors"),
        config | ({} if tie is None else {"tie_word_embeddings": tie}),
    )

    if tie is None:
        assert HEAD in merged_of(tmp_path, pair.untied, pair.tied)
    else:
        with pytest.raises(ModelCompatibilityError, match=f"{HEAD}: 'untied' has this tensor and 'tied' lacks it"):
            merged_of(tmp_path, pair.untied, pair.tied)


def missing_merge(*models: dict[str, torch.Tensor], **options: Any) -> Planned:
    return plan_in_memory("weighted", models, options=options)


def notes_of(merge: Planned) -> list[str]:
    assert {(note.where, note.severity) for note in merge.plan.notes} <= {("options.missing_tensors", "note")}
    return [note.message for note in merge.plan.notes]


A_AND_B = (
    {"both": torch.tensor([1.0]), "a": torch.tensor([2.0, 3.0])},
    {"both": torch.tensor([3.0]), "b": torch.ones(3)},
)


def test_donor_has_exactly_the_donors_tensors_and_says_so() -> None:
    merge = missing_merge(*A_AND_B, missing_tensors="donor")

    merged = merge.merge()

    assert {name: tensor.tolist() for name, tensor in merged.items()} == {"both": [2.0], "a": [2.0, 3.0]}
    assert notes_of(merge) == [
        "1 tensor that not every model has: taken from the donor 'model_0' unmerged, for example a of 'model_0'.",
        "1 tensor that the donor 'model_0' has no place for: left out, for example b of 'model_1'.",
    ]


def test_union_has_the_others_tensors_too() -> None:
    third = {"both": torch.tensor([5.0]), "b": torch.zeros(3), "c": torch.tensor([7], dtype=torch.int32)}

    merge = missing_merge(*A_AND_B, third, missing_tensors="union")

    merged = merge.merge()
    expected = {"both": [3.0], "a": [2.0, 3.0], "b": [1.0, 1.0, 1.0], "c": [7]}
    assert {name: tensor.tolist() for name, tensor in merged.items()} == expected
    assert notes_of(merge) == [
        "1 tensor that not every model has: taken from the donor 'model_0' unmerged, for example a of 'model_0'.",
        "2 tensors that the donor 'model_0' lacks: added unmerged from the first model that has such a tensor, for example b of 'model_1'.",
    ]
    actions = {tensor.name: (tensor.action, tensor.inputs) for tensor in merge.plan.tensors}
    assert actions == {"both": ("combine", (0, 1, 2)), "a": ("take", (0,)), "b": ("take", (1,)), "c": ("copy", (2,))}


@pytest.mark.parametrize("missing", ["error", "donor", "union"])
def test_models_that_have_the_same_tensors_are_merged_alike_and_nothing_is_said(missing: str) -> None:
    merge = missing_merge({"t": torch.tensor([1.0])}, {"t": torch.tensor([2.0])}, missing_tensors=missing)

    assert merge.merge()["t"] == 1.5
    assert notes_of(merge) == []


def test_a_tensor_that_the_base_alone_has_is_the_donors() -> None:
    base, model = {"t": torch.ones(2), "base": torch.ones(4)}, {"t": torch.zeros(2), "model": torch.ones(3)}

    for missing, names in (("donor", {"t", "base"}), ("union", {"t", "base", "model"})):
        merge = plan_in_memory("task_arithmetic", [model], base, options={"missing_tensors": missing})
        merged = merge.merge()
        assert merged.keys() == names
        assert torch.equal(merged["base"], base["base"])


@pytest.mark.parametrize("missing", ["error", "donor", "union"])
def test_shapes_that_differ_are_errors_whatever_is_missing(missing: str) -> None:
    with pytest.raises(ModelCompatibilityError, match="has shape"):
        missing_merge({"t": torch.ones(2)}, {"t": torch.ones(3)}, missing_tensors=missing)
    with pytest.raises(ModelCompatibilityError, match=r"t: has shape \[3\] here and \[2\] in 'model_0'"):
        missing_merge({"t": torch.ones(2)}, {}, {"t": torch.ones(3)}, missing_tensors=missing)


def test_shapes_of_what_is_added_must_agree_as_well() -> None:
    with pytest.raises(ModelCompatibilityError, match=r"model_2: t: has shape \[3\] here and \[2\] in 'model_1'"):
        missing_merge({}, {"t": torch.ones(2)}, {"t": torch.ones(3)}, missing_tensors="union")


def test_what_is_added_keeps_its_dtype_unless_one_is_asked_for() -> None:
    models = {"t": torch.ones(1)}, {"t": torch.ones(1), "new": torch.tensor([0.1]).half()}

    assert torch.equal(missing_merge(*models, missing_tensors="union").merge()["new"], models[1]["new"])
    merged = missing_merge(*models, missing_tensors="union", torch_dtype="float32").merge()
    assert torch.equal(merged["new"], models[1]["new"].float())


def test_a_nan_in_what_is_added_is_an_error_that_names_its_model() -> None:
    models = {"t": torch.ones(1)}, {"t": torch.ones(1), "new": torch.tensor([float("nan")])}

    with pytest.raises(NumericError, match="'model_1' holds 1 NaN"):
        missing_merge(*models, missing_tensors="union").merge()


@pytest.mark.parametrize("missing", ["donor", "union"])
def test_a_head_of_its_own_is_left_out_where_the_donor_ties_it(tmp_path: Path, missing: str) -> None:
    pair = tied_and_untied(tmp_path)
    models = [{"path": str(pair.tied)}, {"path": str(pair.untied)}]

    report = modelmerger.merge(
        MergeConfig(
            strategy="weighted",
            models=models,
            options={"missing_tensors": missing},
            output_path=str(tmp_path / "merged"),
        )
    )

    assert HEAD not in load_file(tmp_path / "merged" / "model.safetensors")
    assert any(f"left out, for example {HEAD} of 'untied'" in note.message for note in report.notes)


def test_a_tied_head_stands_in_with_the_embedding_and_is_not_missing(tmp_path: Path) -> None:
    pair = tied_and_untied(tmp_path)
    models = [{"path": str(pair.untied)}, {"path": str(pair.tied)}]
    config = {"strategy": "weighted", "models": models, "options": {"missing_tensors": "donor"}}

    plan = ModelMerger(MergeConfig(**config)).plan()

    assert plan.notes == []
    assert all(tensor.action == "combine" for tensor in plan.tensors)


def layered(layers: int, rows: int = 8, width: int = 4, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    tensors = {"embed_tokens.weight": torch.ones(rows, width), **more}
    for layer in range(layers):
        tensors |= {
            f"layers.{layer}.q.weight": torch.ones(width, width),
            f"layers.{layer}.norm.weight": torch.ones(width),
        }
    return tensors


def test_a_resized_vocabulary_is_one_problem_with_both_sizes_and_the_way_out() -> None:
    ours = layered(1) | {HEAD: torch.ones(8, 4), "final_logits_bias": torch.ones(1, 8)}
    theirs = layered(1, rows=12) | {HEAD: torch.ones(12, 4), "final_logits_bias": torch.ones(1, 12)}

    for first, second, said in ((ours, theirs, "12 rows here, 8 in 'm0'"), (theirs, ours, "8 rows here, 12 in 'm0'")):
        (line,) = messages(first, second)
        smaller = "m0" if first is ours else "m1"
        assert line == (
            f"m1: embed_tokens.weight: the vocabulary was resized: {said}, and a tokenizer is missing. "
            f"Add it, or call resize_token_embeddings(12) on '{smaller}', and save that."
        )


def test_all_models_are_resized_to_the_largest_vocabulary() -> None:
    found = messages(layered(1), layered(1, rows=12), layered(1, rows=16))

    assert [line.split("call ")[1].split(",")[0] for line in found] == [
        "resize_token_embeddings(16) on 'm0' and 'm1'",
        "resize_token_embeddings(16) on 'm0'",
    ]


def test_models_of_another_size_are_one_problem_and_another_cause_is_another() -> None:
    found = messages(layered(3, probe=torch.ones(7)), layered(3, width=6, probe=torch.ones(9)))

    assert found == [
        (
            "m1: embed_tokens.weight: has shape [8, 6] here and [8, 4] in 'm0', and 6 more tensors differ likewise. "
            "Only models of one size can be merged."
        ),
        "m1: probe: has shape [9] here and [7] in 'm0'. Only equal shapes can be merged.",
    ]


def test_a_missing_range_of_layers_is_one_problem() -> None:
    found = messages(
        layered(6), {k: v for k, v in layered(8).items() if ".2." not in k and ".4." not in k and ".5." not in k}
    )

    advice = "Merge models of one architecture, or set missing_tensors."
    assert found == [
        f"m1: 'm0' has layers 2 and 4 to 5 of layers (6 tensors) and 'm1' lacks them. {advice}",
        f"m1: 'm1' has layers 6 to 7 of layers (4 tensors) and 'm0' lacks them. {advice}",
    ]


def test_the_same_tensor_missing_in_every_layer_is_one_problem() -> None:
    (line,) = messages(layered(9), {name: t for name, t in layered(9).items() if not name.endswith("q.weight")})

    assert line.startswith("m1: layers.0.q.weight: 'm0' has this tensor and 8 more that 'm1' lacks. Merge models")


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("", "model.", "model. here where that has no prefix (model.embed_tokens.weight)"),
        ("model.", "", "no prefix here where that has model. (embed_tokens.weight)"),
        ("model.", "transformer.", "transformer. here where that has model. (transformer.embed_tokens.weight)"),
        ("a.model.", "b.model.", "b.model. here where that has a.model. (b.model.embed_tokens.weight)"),
    ],
)
def test_another_prefix_is_one_problem(ours: str, theirs: str, said: str) -> None:
    models = [{f"{prefix}{name}": tensor for name, tensor in layered(2).items()} for prefix in (ours, theirs)]

    (line,) = messages(*({**model, HEAD: torch.ones(8, 4)} for model in models))

    assert line == (
        f"m1: has other names for 5 tensors than 'm0': {said}. Save both models alike, or rename the tensors."
    )


def test_another_dtype_family_in_many_tensors_is_one_problem() -> None:
    counters = {f"c{i}": torch.arange(3) for i in range(4)}

    (line,) = messages(counters, {name: tensor.float() for name, tensor in counters.items()})

    assert line == "m1: c0: is F32 here and I64 in 'm0', and so are 3 more tensors. Convert one of the models first."
