"""Strategies that speak by composition alone, as installed distributions: layers are stacked, task vectors and adapters extracted."""

import json
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import set_block
from conftest import directory_state, random_tensors, write_model
from faults.stopping import Steps, killed_merge, spread, staging_path
from inputs.tiny_models import load, logits, make_tiny, said_by_transformers
from modelmerger import MergeConfig, ModelMerger, NumericError, Watch, merge, verify
from modelmerger.testing import MemoryCheckpoint, plan_in_memory
from safetensors.torch import load_file

from tests.core.plugging import install
from tests.strategies.composing import EXTRACTING, STACK, TASK_VECTOR

Distribution = Callable[..., Path]
Tensors = dict[str, torch.Tensor]


def layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None


def stacked(first: Tensors, second: Tensors) -> Tensors:
    """What the stack of two models of two layers must be."""
    made = dict(first)
    for name, tensor in second.items():
        if (number := layer(name)) is not None:
            made[name.replace(f"layers.{number}.", f"layers.{number + 2}.")] = tensor
    return made


def stack_of(models: SimpleNamespace, output: Path, **options: Any) -> dict[str, Any]:
    paths = [{"path": str(models.a)}, {"path": str(models.b)}]
    return {"strategy": "pile", "models": paths, "output_path": str(output), "options": options}


def weights(directory: Path) -> Tensors:
    return {k: v for file in sorted(directory.glob("*.safetensors")) for k, v in load_file(file).items()}


@pytest.fixture
def _stack(distribution: Distribution) -> None:
    install(distribution, [("strategy", "pile", STACK)])


@pytest.mark.usefixtures("_stack")
@pytest.mark.parametrize("tied", [True, False])
def test_a_stack_of_two_models_loads_in_silence_generates_and_has_their_bits(tmp_path: Path, tied: bool) -> None:
    models = make_tiny(tmp_path, tied=tied)
    output = tmp_path / "stacked"
    report = merge(MergeConfig(**stack_of(models, output, max_shard_size=3000)))
    wanted = stacked(weights(models.a), weights(models.b))

    found = weights(output)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name].view(torch.uint8), wanted[name].view(torch.uint8)) for name in wanted)
    assert len(list(output.glob("*.safetensors"))) > 1
    config = json.loads((output / "config.json").read_text())
    assert (config["num_hidden_layers"], config["layer_types"]) == (4, ["full_attention"] * 4)

    model, said = load(output)
    assert said == load(models.a)[1]
    with said_by_transformers() as while_generating:
        generated = model.generate(torch.tensor([[3, 4]]), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert (while_generating, generated.shape[1] > 2) == ([], True)
    reference = type(model)(model.config).eval()
    reference.load_state_dict(wanted, strict=not tied)
    assert torch.equal(logits(model), logits(reference))

    assert (report.tensors, report.relative_error, report.base) == (len(wanted), None, None)
    assert "# Merged model" in (output / "README.md").read_text()
    verify(output)
    assert isinstance(ModelMerger(MergeConfig(**stack_of(models, tmp_path / "again"))).merge(), type(model))


@pytest.mark.usefixtures("_stack")
def test_a_stack_is_planned_as_what_it_is(models: SimpleNamespace) -> None:
    config = MergeConfig(**stack_of(models, models.output))
    plan = ModelMerger(config).plan()
    told = plan.as_dict()
    assert (told["merges"], told["writes"]) == ("full weights", "model")
    assert told["tensors"][0]["inputs"] == ["a", "b"]
    assert "pile of 2 models\n" in str(plan)
    assert f"tensors  {len(plan.tensors)} composed tensors\n" in str(plan)
    assert plan.bytes_read == plan.bytes_written - (plan.bytes_written - sum(t.elements * 2 for t in plan.tensors))
    assert [Path(file.path).parent.name for file in plan.inputs] == ["a", "b"]


@pytest.mark.usefixtures("_stack")
def test_checking_a_stack_reads_no_weights_but_plans_it() -> None:
    first, second = (MemoryCheckpoint(name, random_tensors(i)) for i, name in enumerate("ab"))
    merge = plan_in_memory("pile", [first, second])
    assert (first.reads, second.reads) == ([], [])
    assert merge.merge().keys() == stacked(random_tensors(0), random_tensors(1)).keys()
    assert second.bytes_read < first.bytes_read


@pytest.mark.usefixtures("_stack")
def test_slices_workers_and_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_tensors(0), random_tensors(1)
    wanted = stacked(first, second)
    set_block(monkeypatch, 1 << 9)
    merge = plan_in_memory("pile", [first, second])
    for workers, elements in ((1, 1 << 19), (3, 33), (2, 1)):
        found = merge.merge(workers=workers, slice_elements=elements)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.usefixtures("_stack")
def test_a_stack_is_written_in_the_dtype_of_the_option_and_keeps_whole_numbers() -> None:
    first, second = ({**random_tensors(i), "model.layers.1.ids": torch.arange(5) + i} for i in (0, 1))
    found = plan_in_memory("pile", [first, second], options={"torch_dtype": "float32"}).merge()
    wanted = {k: v.float() if v.is_floating_point() else v for k, v in stacked(first, second).items()}
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert found["model.layers.3.ids"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("_stack")
def test_a_killed_stack_is_resumed_to_the_same_bytes(models: SimpleNamespace) -> None:
    config = stack_of(models, models.output, max_shard_size=2000)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    whole = directory_state(models.output)
    published = [name for name, _ in steps.seen].index("rename")
    for at in (*spread(len(steps.seen), 6), published):
        shutil.rmtree(models.output)
        assert killed_merge(config, at) == -signal.SIGKILL
        report = merge(MergeConfig(**config))
        assert directory_state(models.output) == whole, f"killed at step {at}, {steps.seen[at - 1]}"
        assert not staging_path(models.output).exists()
    assert report.bytes_reused == report.bytes_written > 0


@pytest.mark.usefixtures("_stack")
def test_a_merge_of_other_models_is_another_plan(models: SimpleNamespace) -> None:
    config = stack_of(models, models.output)
    plans = [ModelMerger(MergeConfig(**config)).plan().digest]
    plans.append(ModelMerger(MergeConfig(**{**config, "models": config["models"][::-1]})).plan().digest)
    written = json.loads((models.b / "config.json").read_text())
    (models.b / "config.json").write_text(json.dumps({**written, "layer_types": ["x"]}))
    (models.a / "config.json").write_text(json.dumps({**written, "layer_types": ["y"]}))
    plans.append(ModelMerger(MergeConfig(**config)).plan().digest)
    assert len(set(plans)) == 3


@pytest.mark.usefixtures("_stack")
def test_a_nan_is_blamed_on_the_model_and_the_tensor_that_have_it(models: SimpleNamespace) -> None:
    """The stack calls it `model.layers.3.mlp.weight`."""
    spoilt = dict(models.tensors["b"])
    spoilt["model.layers.1.mlp.weight"] = spoilt["model.layers.1.mlp.weight"].clone()
    spoilt["model.layers.1.mlp.weight"][3, 4] = torch.nan
    write_model(models.b, spoilt)
    with pytest.raises(NumericError) as refused:
        merge(MergeConfig(**stack_of(models, models.output)))
    (line,) = refused.value.lines()
    assert line.startswith(f"{models.b}: model.layers.1.mlp.weight: 'b' holds 1 NaN. Repair the model")
    assert not models.output.exists()
    merge(MergeConfig(**stack_of(models, models.output, allow_nonfinite=True)))
    assert weights(models.output)["model.layers.3.mlp.weight"][3, 4].isnan()


@pytest.mark.parametrize("spoiled", ["a", "base"])
def test_a_nan_in_what_a_tensor_is_computed_from_is_blamed_on_that(
    distribution: Distribution, models: SimpleNamespace, spoiled: str
) -> None:
    install(distribution, [("strategy", "task_vector", TASK_VECTOR)])
    tensors = dict(models.tensors[spoiled])
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], torch.inf)
    path = write_model(getattr(models, spoiled), tensors)
    with pytest.raises(NumericError) as refused:
        merge(MergeConfig(**vector_of(models)))
    (line,) = refused.value.lines()
    assert line.startswith(f"{path}: model.norm.weight: '{spoiled}' holds 16 infinities. Repair the model")


def vector_of(models: SimpleNamespace) -> dict[str, Any]:
    return {
        "strategy": "task_vector",
        "models": [{"path": str(models.a)}],
        "base_model": str(models.base),
        "output_path": str(models.output),
    }


def test_a_task_vector_is_written_as_a_kind_of_its_own(distribution: Distribution, models: SimpleNamespace) -> None:
    install(distribution, [("strategy", "task_vector", TASK_VECTOR)])
    config = MergeConfig(**vector_of(models))
    report = merge(config)
    ours, theirs = models.tensors["a"], models.tensors["base"]

    found = load_file(models.output / "task_vector.safetensors")
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], ours[name].float() - theirs[name].float()) for name in ours)
    assert json.loads((models.output / "task_vector.json").read_text()) == {"of": "a", "from": "base"}
    files = {path.name for path in models.output.iterdir()}
    assert files == {"task_vector.safetensors", "task_vector.json", "README.md", "modelmerger.json"}
    card = (models.output / "README.md").read_text()
    assert "# Merged task vector" in card
    assert "library_name" not in card and "base_model_relation" not in card
    assert "base_model:\n- base\n" in card
    assert report.base == str(models.base)
    verify(models.output)

    plan = ModelMerger(config).plan()
    assert f"tensors  {len(ours)} tensors of a task vector\n" in str(plan)
    assert plan.as_dict()["tensors"][0]["inputs"] == ["a", "base"]
    manifest = json.loads((models.output / "modelmerger.json").read_text())
    assert manifest["plan"] == plan.digest == report.plan
    assert "task_vector.json" in manifest["files"]


def test_an_adapter_is_extracted_by_a_composition_that_reads_weights_once_it_is_planned(
    distribution: Distribution, tmp_path: Path
) -> None:
    """And comes back as a model of PEFT: what is written counts, not who wrote it."""
    from peft import PeftModel

    install(distribution, [("strategy", "extracting", EXTRACTING)])
    models = make_tiny(tmp_path, tied=True)
    config = MergeConfig(
        strategy="extracting",
        models=[{"path": str(models.a)}],
        base_model=str(models.base),
        output_path=str(tmp_path / "adapter"),
        options={"kept": 0.7},
    )
    merger = ModelMerger(config)
    assert [str(note) for note in merger.check_compatibility()][-1] == "options.kept: the ranks depend on the weights."
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model w", UserWarning)  # ties its embedding, as the sources do
        model = merger.merge()
    report = merger.merge_report
    assert report is not None
    assert isinstance(model, PeftModel)
    assert [str(note) for note in report.notes][-1] == "options.kept: the ranks depend on the weights."
    ours, theirs, written = weights(models.a), weights(models.base), weights(tmp_path / "adapter")
    square = missing = 0.0
    for name in (f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)):
        change = ours[f"{name}.weight"].double() - theirs[f"{name}.weight"].double()
        a, b = (written[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
        singular = torch.linalg.svdvals(change)
        assert report.observed[name] == {"rank": len(a)}
        assert 1 < len(a) < 16
        torch.testing.assert_close(torch.linalg.norm(change - b @ a), singular[len(a) :].norm(), rtol=1e-5, atol=0)
        square, missing = square + float(change.norm() ** 2), missing + float((change - b @ a).norm() ** 2)
    assert report.relative_error == pytest.approx((missing / square) ** 0.5, rel=1e-5)
    assert "relative error 0." in str(report)
    assert "library_name: peft" in (tmp_path / "adapter/README.md").read_text()
