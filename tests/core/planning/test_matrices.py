"""`merge_embeddings` and `merge_lm_head`: the matrix is the donor's, bit for bit, and everything else is merged."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from conftest import CONFIG, random_tensors, write_model
from inputs.tiny_models import load, tied, untied
from modelmerger import ConfigError, MergeConfig, ModelMerger, NumericError
from modelmerger.testing import MemoryCheckpoint, Planned, plan_in_memory
from safetensors.torch import load_file

__all__ = ["tied", "untied"]
EMBEDDING, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.weight"
NEOX = ("gpt_neox.embed_in.weight", "embed_out.weight")
UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}


def model(seed: int, *names: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    return random_tensors(seed, dtype, dict.fromkeys(names or (EMBEDDING, LAYER, HEAD), (6, 4)))


def merge_of(*models: dict[str, torch.Tensor], config: dict[str, Any] = UNTIED, **options: Any) -> Planned:
    checkpoints = [MemoryCheckpoint(f"m{i}", tensors, config) for i, tensors in enumerate(models)]
    return plan_in_memory("weighted", checkpoints, options=options)


def from_the_donor(merge: Planned, donor: dict[str, torch.Tensor]) -> set[str]:
    merged = merge.merge()
    assert merged.keys() == donor.keys()
    return {name for name in merged if torch.equal(merged[name].view(torch.uint8), donor[name].view(torch.uint8))}


@pytest.mark.parametrize("names", [(EMBEDDING, LAYER, HEAD), (NEOX[0], LAYER, NEOX[1])], ids=["llama", "neox"])
@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({}, ()),
        ({"merge_embeddings": True, "merge_lm_head": True}, ()),
        ({"merge_embeddings": False}, (0,)),
        ({"merge_lm_head": False}, (2,)),
        ({"merge_embeddings": False, "merge_lm_head": False}, (0, 2)),
        ({"merge_embeddings": False, "merge_lm_head": True}, (0,)),
    ],
    ids=str,
)
def test_the_matrix_is_the_donors_and_the_others_are_merged(
    options: dict[str, bool], places: tuple[int, ...], names: tuple[str, ...]
) -> None:
    models = model(1, *names), model(2, *names)

    merge = merge_of(*models, **options)

    assert from_the_donor(merge, models[0]) == {names[place] for place in places}
    kept = [tensor for tensor in merge.plan.tensors if tensor.action == "take"]
    assert [(tensor.inputs, tensor.weights) for tensor in kept] == [((0,), ())] * len(places)
    assert not merge.plan.notes
    assert merge.checkpoints[1].bytes_read == 48 * (3 - len(places))


@pytest.mark.parametrize("strategy", ["sequential", "slerp", "task_arithmetic"])
def test_the_base_is_the_donor_whatever_the_strategy(strategy: str) -> None:
    base = model(0) if strategy == "task_arithmetic" else None
    models = [model(1), model(2)]
    options = {"merge_embeddings": False, "merge_lm_head": False}
    options |= {"clamp_weights": True, "clamp_range": [-1e-3, 1e-3]} if base else {}

    merge = plan_in_memory(strategy, models, base, [1, 0.5], options=options)

    assert from_the_donor(merge, base or models[0]) == {EMBEDDING, HEAD}


def test_a_strategy_on_whole_tensors_does_not_see_what_is_kept(distribution: Callable[..., Path]) -> None:
    seen = """
        from modelmerger import Traits, hookimpl
        traits = Traits(models=(2, None), granularity="whole")

        @hookimpl
        def merge_tensor(tensors, tensor_name):
            assert "embed" not in tensor_name
            return tensors[0] + tensors[1]
    """
    distribution("acme", "1.0", "[modelmerger.strategies]\nacme_sum = acme_sum\n", acme_sum=dedent(seen))
    models = [model(1), model(2)]

    merge = plan_in_memory("acme_sum", models, options={"merge_embeddings": False})

    assert from_the_donor(merge, models[0]) == {EMBEDDING}


@pytest.mark.parametrize("stored", ["left out", "twice"])
def test_a_tied_matrix_is_one_and_merge_embeddings_decides(stored: str) -> None:
    names = (EMBEDDING, LAYER) if stored == "left out" else (EMBEDDING, LAYER, HEAD)
    models = model(1, *names), model(2, *names)

    kept = from_the_donor(merge_of(*models, config=TIED, merge_embeddings=False), models[0])

    assert kept == set(names) - {LAYER}
    assert from_the_donor(merge_of(*models, config={"text_config": TIED}, merge_embeddings=False), models[0]) == kept


def test_a_tied_head_that_the_file_holds_twice_stays_equal_to_the_embedding() -> None:
    tensors = [model(seed) for seed in (1, 2)]
    for one in tensors:
        one[HEAD] = one[EMBEDDING].clone()
    weights = [[1, 0], {"lm_head.*": 0.9, "default": [0.25, 0.75]}]

    for config, equal in ((TIED, True), (UNTIED, False)):
        merge = plan_in_memory(
            "weighted", [MemoryCheckpoint(f"m{i}", one, config) for i, one in enumerate(tensors)], weights=weights
        )
        merged = merge.merge()
        assert torch.equal(merged[HEAD], merged[EMBEDDING]) is equal
        said = [
            "models[1].weight: the pattern 'lm_head.*' has no effect: all its tensors match an earlier one, or have"
        ]
        assert [str(note)[: len(said[0])] for note in merge.plan.notes] == said * equal
    with_embedding_kept = merge_of(*tensors, config=TIED, merge_embeddings=False).merge()
    assert torch.equal(with_embedding_kept[HEAD], tensors[0][EMBEDDING])


@pytest.mark.parametrize(
    ("options", "contradict"),
    [
        ({"merge_lm_head": False}, True),
        ({"merge_embeddings": True, "merge_lm_head": False}, True),
        ({"merge_embeddings": False, "merge_lm_head": True}, True),
        ({"merge_embeddings": False, "merge_lm_head": False}, False),
        ({"merge_embeddings": True, "merge_lm_head": True}, False),
        ({"merge_embeddings": False}, False),
    ],
    ids=str,
)
def test_options_that_differ_for_a_tied_model_are_a_contradiction(options: dict[str, bool], contradict: bool) -> None:
    models = model(1, EMBEDDING, LAYER), model(2, EMBEDDING, LAYER)
    if not contradict:
        merge_of(*models, config=TIED, **options)
        return
    with pytest.raises(ConfigError) as caught:
        merge_of(*models, config=TIED, **options)
    assert str(caught.value) == (
        "options.merge_lm_head: contradicts merge_embeddings: 'm0' ties its LM head to the embedding, so they are one matrix. "
        "Give both options the same value, or leave this one out"
    )


def test_a_file_without_a_head_is_tied_as_its_aliases_say() -> None:
    checkpoint = MemoryCheckpoint("m0", model(1, EMBEDDING), aliases={HEAD: EMBEDDING})

    with pytest.raises(ConfigError, match="ties its LM head to the embedding"):
        plan_in_memory("weighted", [checkpoint], options={"merge_lm_head": False})


def test_all_copies_of_a_shared_embedding_are_kept() -> None:
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "encoder.block.0.q.weight")
    models = model(1, *names), model(2, *names)

    assert from_the_donor(merge_of(*models, merge_embeddings=False), models[0]) == set(names[:3])


def test_an_option_that_finds_no_tensor_is_noted() -> None:
    merge = merge_of(model(1, "a.weight"), model(2, "a.weight"), merge_embeddings=False, merge_lm_head=False)

    assert [(note.where, note.severity) for note in merge.plan.notes] == [
        ("options.merge_embeddings", "note"),
        ("options.merge_lm_head", "note"),
    ]
    assert str(merge.plan.notes[1]) == (
        "options.merge_lm_head: has no effect: no tensor of the donor has the name of an LM head "
        "(lm_head.weight, embed_out.weight, output.weight)."
    )


def test_the_dtype_that_is_asked_for_is_written_here_too() -> None:
    models = model(1, dtype=torch.float32), model(2, dtype=torch.float32)

    merged = merge_of(*models, merge_embeddings=False, torch_dtype="float16").merge()

    assert torch.equal(merged[EMBEDDING], models[0][EMBEDDING].half())


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "'m0' holds 1 NaN"), (1e6, "do not fit in F16")])
def test_a_kept_matrix_is_checked_as_merged_ones_are(value: float, said: str) -> None:
    models = model(1, dtype=torch.float32), model(2, dtype=torch.float32)
    models[0][HEAD][2, 1] = value

    with pytest.raises(NumericError, match=said) as caught:
        merge_of(*models, merge_lm_head=False, torch_dtype="float16").merge()
    assert caught.value.problems[0].tensor == HEAD


def test_what_is_kept_from_the_donor_may_be_unsound_elsewhere() -> None:
    models = model(1), model(2)
    models[1][HEAD][:] = float("inf")

    assert from_the_donor(merge_of(*models, merge_lm_head=False), models[0]) == {HEAD}


def test_nan_bits_are_kept_where_nan_may_pass() -> None:
    donor = model(0)
    donor[HEAD].view(torch.int16)[0, 0] = 0x7FA1
    options = {"merge_lm_head": False, "allow_nonfinite": True}

    assert HEAD in from_the_donor(plan_in_memory("task_arithmetic", [model(1)], donor, [0.5], options=options), donor)


def test_a_matrix_that_is_no_float_need_not_be_equal_everywhere() -> None:
    models = [{EMBEDDING: torch.full((6, 4), seed), LAYER: torch.ones(2)} for seed in (1, 2)]

    merge = merge_of(*models, merge_embeddings=False)

    assert merge.plan.tensors[0].inputs == (0,)
    assert torch.equal(merge.merge()[EMBEDDING], models[0][EMBEDDING])


@pytest.mark.parametrize("options", [{"merge_embeddings": False}, {"merge_embeddings": False, "merge_lm_head": False}])
def test_real_models_keep_their_matrices_on_the_disk_and_load(
    tied: SimpleNamespace, untied: SimpleNamespace, tmp_path: Path, options: dict[str, bool]
) -> None:
    for models, heads in ((tied, set()), (untied, {HEAD} if "merge_lm_head" in options else set())):
        output = tmp_path / str(bool(heads)) / "merged"
        output.parent.mkdir(exist_ok=True)
        entries = [{"path": str(models.a)}, {"path": str(models.b)}]
        modelmerger.merge(
            MergeConfig(
                strategy="weighted", models=entries, options={**options, "overwrite": True}, output_path=str(output)
            )
        )
        merged, donor = load_file(output / "model.safetensors"), load_file(models.a / "model.safetensors")
        assert {name for name in merged if torch.equal(merged[name], donor[name])} == {EMBEDDING} | heads
        assert load(output)[1] == load(models.a)[1]


def test_the_note_reaches_report_and_manifest(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in ("a", "b"):
        write_model(getattr(models, name), models.tensors[name], CONFIG | UNTIED | {"architectures": ["LlamaModel"]})
    config["options"] = {"merge_lm_head": False}

    assert "note     options.merge_lm_head: has no effect" in str(ModelMerger(MergeConfig(**config)).plan())
    report = modelmerger.merge(MergeConfig(**config))

    assert any(note.where == "options.merge_lm_head" for note in report.notes)
    assert "options.merge_lm_head: has no effect" in (models.output / "modelmerger.json").read_text()
