"""A merge within a merge gives what the same merge gives once it is published in float32 and read again, bit for bit."""

import importlib
import json
import random
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import set_block
from conftest import CONFIG, SHAPES, directory_state, random_tensors, write_model
from modelmerger import (
    ConfigError,
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    NumericError,
    Watch,
    merge,
    verify,
)
from modelmerger.config.resolve import resolve
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.planning.prepared import prepare
from modelmerger.testing.merging import Planned
from safetensors.torch import load_file, save_file

from tests.core.engine.work.test_executors import EXECUTOR
from tests.core.plugging import install
from tests.faults.stopping import Steps, killed_merge, staging_path

Config = dict[str, Any]
LARGER = {**SHAPES, "model.layers.1.mlp.weight": (90, 60), "model.layers.2.mlp.weight": (33, 17)}

ROWWISE = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), granularity="rowwise")

@hookimpl
def merge_tensor(tensors, weights):
    mixed = sum(weight * tensor for weight, tensor in zip(weights, tensors))
    return mixed / mixed.norm(dim=-1, keepdim=True)
"""
WHOLE = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), granularity="whole")

@hookimpl
def merge_tensor(tensors, weights):
    mixed = sum(weight * tensor for weight, tensor in zip(weights, tensors))
    return mixed - mixed.mean() + mixed.flatten().cumsum(0).view_as(mixed)
"""
MEASURED = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def measure_tensor(tensors):
    return torch.stack([tensor.double().square().sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, weights, measurements):
    (squares,) = measurements
    return sum(weight * tensor / squares[i].sqrt() for i, (weight, tensor) in enumerate(zip(weights, tensors)))
"""
ROUNDS = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), rounds=3)

@hookimpl
def measure_tensor(tensors, round, measurements, shape):
    if round == 0:
        return torch.stack([tensor.double().sum() for tensor in tensors])
    if round == 2 and len(shape) == 1:
        return None
    means = measurements[0] / torch.Size(shape).numel()
    return torch.stack([((t.double() - mean) ** (2 * round)).sum() for t, mean in zip(tensors, means)])

@hookimpl
def merge_tensor(tensors, measurements):
    shares = 1 / (measurements[1] + measurements[-1] + 1)
    return sum(t * float(share / shares.sum()) for t, share in zip(tensors, shares))
"""
RANDOM = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), inputs="updates")

@hookimpl
def merge_tensor(tensors, inputs, weights, random):
    return sum(w * t * (random(model) < 0.5) for t, model, w in zip(tensors, inputs, weights, strict=True))
"""
INSTALLED = {"rows": ROWWISE, "whole": WHOLE, "measured": MEASURED, "rounds": ROUNDS, "dropped": RANDOM}


@pytest.fixture
def strategies(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", name, source) for name, source in INSTALLED.items()])


@pytest.fixture
def tuned(tmp_path: Path) -> SimpleNamespace:
    """A base and four models tuned from it, in bfloat16, one of them in shards."""
    base = random_tensors(0, shapes=LARGER)
    for number, name in enumerate("abcd"):
        write_model(tmp_path / name, random_tensors(number + 1, shapes=LARGER, near=base), shards=1 + number % 2)
    write_model(tmp_path / "base", base)

    def path(name: str, **more: Any) -> Config:
        return {"path": str(tmp_path / name), **more}

    def inner(merge: Config, **more: Any) -> Config:
        return {"merge": merge, **more}

    def config(**given: Any) -> Config:
        return {"output_path": str(tmp_path / "merged"), **given}

    return SimpleNamespace(folder=tmp_path, output=tmp_path / "merged", path=path, inner=inner, config=config)


def published_first(given: Config, folder: Path, merges: Config | None = None, done: Config | None = None) -> Config:
    """The config with every merge within it published in float32, each into a directory, which stands in its place."""
    merges, done = merges if merges is not None else given.get("merges", {}), done if done is not None else {}

    def directory(inner: Config) -> str:
        flat = published_first(inner, folder, merges, done)
        options = {"torch_dtype": "float32", **run, **inner.get("options", {})}
        output = str(folder / f"published-{len(done)}")
        done[output] = output
        merge(MergeConfig(**{**flat, "options": options, "output_path": output}))
        return output

    def of_path(path: str) -> str:
        if path in merges and path not in done:
            done[path] = directory(merges[path])
        return done.get(path, path)

    def model(entry: Config) -> Config:
        rest = {key: value for key, value in entry.items() if key != "merge"}
        return {**rest, "path": directory(entry["merge"]) if "merge" in entry else of_path(entry["path"])}

    run = {"seed": given["options"]["seed"]} if "seed" in given.get("options", {}) else {}
    flat = {key: value for key, value in given.items() if key != "merges"}
    flat["models"] = [model(entry) for entry in given["models"]]
    if (base := given.get("base_model")) is not None:
        flat["base_model"] = directory(base["merge"]) if isinstance(base, dict) else of_path(base)
    return flat


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def assert_same_bits(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value.reshape(-1).view(torch.uint8), theirs[name].reshape(-1).view(torch.uint8)), name


def assert_as_published(given: Config, folder: Path) -> dict[str, torch.Tensor]:
    """Merges a config, and the same with every merge within it published first; the weights, which must be the same."""
    progress: list[tuple[int, int]] = []
    report = merge(MergeConfig(**given), Watch(progress=lambda done, total: progress.append((done, total))))
    ours = weights_of(Path(given["output_path"]))
    verify(Path(given["output_path"]))
    assert progress[-1][0] == progress[-1][1] == report.bytes_read + report.bytes_written
    flat = published_first(given, folder)
    dtype = {name: tensor.dtype for name, tensor in ours.items()}
    flat["output_path"] = str(folder / "flat")
    wanted = given.get("options", {}).get("torch_dtype", "bfloat16")
    flat["options"] = {**given.get("options", {}), "torch_dtype": wanted}
    merge(MergeConfig(**flat))
    assert_same_bits(ours, weights_of(folder / "flat"))
    floating = {value for value in dtype.values() if value.is_floating_point}
    assert floating == {getattr(torch, wanted)}
    return ours


def weighted(*models: Config, **options: Any) -> Config:
    return {"strategy": "weighted", "models": list(models), **({"options": options} if options else {})}


def slerp(first: Config, second: Config, t: Any = 0.3, **options: Any) -> Config:
    return {"strategy": "slerp", "models": [first, second], "options": {"interpolation_factor": t, **options}}


def test_weighted_in_weighted(tuned: SimpleNamespace) -> None:
    """And it is not what comes of rounding the inner merge to bfloat16, nor of either model alone."""
    given = weighted(tuned.inner(weighted(tuned.path("a", weight=0.7), tuned.path("b", weight=0.3))), tuned.path("c"))
    ours = assert_as_published(tuned.config(**given), tuned.folder)
    a, b, c = (weights_of(tuned.folder / name) for name in "abc")
    for name, value in ours.items():
        expected = 0.5 * (0.7 * a[name].double() + 0.3 * b[name].double()) + 0.5 * c[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=2**-8 * 1.01, atol=1e-9)


def test_slerp_as_a_model_and_as_the_base_of_task_arithmetic(tuned: SimpleNamespace) -> None:
    given = {
        "strategy": "task_arithmetic",
        "models": [
            tuned.inner(slerp(tuned.path("a"), tuned.path("b")), weight=0.6),
            tuned.path("c", weight=[0.2, 0.9]),
        ],
        "base_model": tuned.inner(slerp(tuned.path("base"), tuned.path("d"), {"*mlp*": 0.2, "default": [0.5, 1]})),
    }
    assert_as_published(tuned.config(**given), tuned.folder)


def test_three_levels_with_weights_by_layer_and_pattern(tuned: SimpleNamespace) -> None:
    deepest = {
        "strategy": "task_arithmetic",
        "models": [
            tuned.path("a", operation="subtract", weight={"*mlp*": [0.1, 0.4], "default": 0.2}),
            tuned.path("b"),
        ],
        "base_model": str(tuned.folder / "base"),
        "options": {"scaling_factor": 0.5, "clamp_weights": True, "clamp_range": [-0.03, 0.03]},
    }
    middle = slerp(tuned.inner(deepest), tuned.path("c"))
    given = weighted(tuned.path("d", weight=0.2), tuned.inner(middle, weight=0.8), torch_dtype="float16")
    assert_as_published(tuned.config(**given), tuned.folder)


def test_a_merge_that_is_used_twice_is_planned_once(tuned: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import modelmerger.planning.inner_merges as module

    planned: list[str] = []
    make = module.make_plan
    monkeypatch.setattr(module, "make_plan", lambda *given: planned.append(given[2].where) or make(*given))
    given = {
        "strategy": "task_arithmetic",
        "models": [{"path": "soup", "weight": 0.5}, tuned.inner(slerp({"path": "soup"}, tuned.path("c")))],
        "base_model": "soup",
        "merges": {"soup": weighted(tuned.path("a"), tuned.path("b"))},
    }
    ModelMerger(MergeConfig(**tuned.config(**given))).plan()
    assert planned == ["merges.soup", "models[1].merge"]
    assert_as_published(tuned.config(**given), tuned.folder)
    sources = json.loads((tuned.output / "modelmerger.json").read_text())["sources"]
    assert [source["name"] for source in sources] == ["soup", "model_1", "soup (base)"]
    assert sources[0]["merge"]["plan"] == sources[2]["merge"]["plan"]


@pytest.mark.usefixtures("strategies")
@pytest.mark.parametrize("outer", ["rows", "whole", "measured", "rounds", "weighted", "slerp", "dropped"])
@pytest.mark.parametrize("inner", ["rows", "whole", "measured", "rounds", "slerp", "dropped"])
def test_strategies_of_every_kind(
    tuned: SimpleNamespace, inner: str, outer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_block(monkeypatch, 1 << 10)
    within: Config = {"strategy": inner, "models": [tuned.path("a", weight=0.6), tuned.path("b", weight=0.4)]}
    given: Config = {"strategy": outer, "models": [tuned.inner(within), tuned.path("c", weight=0.5)]}
    for one, strategy in ((within, inner), (given, outer)):
        if strategy == "dropped":
            one["base_model"] = str(tuned.folder / "base")
    given["options"] = {"seed": 7}
    ours = merge_of(given)
    flat = published_first(given, tuned.folder)
    assert_same_bits(ours, merge_of({**flat, "options": {"seed": 7, "torch_dtype": "bfloat16"}}))


def merge_of(given: Config, **how: Any) -> dict[str, torch.Tensor]:
    """A merge in memory of models in files."""
    settings, hooks = resolve(given)
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        return Planned(ready.plan, ready.settings, ready.hooks, ready.checkpoints).merge(**how)


@pytest.mark.usefixtures("strategies")
@pytest.mark.parametrize("inner", ["rows", "whole", "measured", "rounds", "slerp", "weighted"])
def test_neither_slices_nor_workers_nor_the_order_of_units_move_a_bit(
    tuned: SimpleNamespace, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_block(monkeypatch, 1 << 10)
    within = {"strategy": inner, "models": [tuned.path("a", weight=0.6), tuned.path("b", weight=0.4)]}
    given = slerp(tuned.inner(within), tuned.path("c"))
    expected = merge_of(given, workers=1)

    def shuffled(units: Any) -> Any:
        mixed = list(units)
        random.Random(3).shuffle(mixed)
        return mixed

    for how in ({"workers": 4}, {"slice_elements": 37}, {"order": shuffled, "workers": 3}):
        assert_same_bits(merge_of(given, **how), expected)


def test_tied_heads(tmp_path: Path, tuned: SimpleNamespace) -> None:
    """A merge of models that tie the head stands in with its embedding where the donor has a head of its own."""
    untied = {**SHAPES, "lm_head.weight": SHAPES["model.embed_tokens.weight"]}
    for number, name in enumerate("xy"):
        write_model(tmp_path / name, random_tensors(number, shapes=SHAPES))
    write_model(tmp_path / "z", random_tensors(9, shapes=untied), {**CONFIG, "tie_word_embeddings": False})
    given = weighted(tuned.path("z"), tuned.inner(weighted(tuned.path("x"), tuned.path("y"))))
    ours = assert_as_published(tuned.config(**given), tmp_path)
    assert "lm_head.weight" in ours


@pytest.mark.parametrize("missing", ["donor", "union"])
def test_tensors_that_one_side_lacks(tmp_path: Path, tuned: SimpleNamespace, missing: str) -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if "layers.1" not in name}
    for number, (name, of) in enumerate({"x": SHAPES, "y": shapes, "z": {**SHAPES, "extra": (7, 3)}}.items()):
        write_model(tmp_path / name, random_tensors(number, shapes=of))
    within = weighted(tuned.path("y"), tuned.path("x"), missing_tensors=missing)
    given = weighted(tuned.inner(within), tuned.path("z"), missing_tensors=missing)
    ours = assert_as_published(tuned.config(**given), tmp_path)
    assert ("extra" in ours) == (missing == "union")
    with pytest.raises(ModelCompatibilityError, match="'y' lacks it"):
        ModelMerger(
            MergeConfig(**tuned.config(**weighted(tuned.inner(weighted(tuned.path("x"), tuned.path("y"))))))
        ).plan()


def with_positions(tmp_path: Path, name: str, seed: int, positions: Any) -> None:
    tensors = random_tensors(seed)
    write_model(tmp_path / name, {**tensors, "positions.weight": torch.tensor(positions)})


def test_copied_tensors(tmp_path: Path, tuned: SimpleNamespace) -> None:
    for number, name in enumerate("xyz"):
        with_positions(tmp_path, name, number, [1, 2, 3])
    given = tuned.config(**weighted(tuned.inner(weighted(tuned.path("x"), tuned.path("y"))), tuned.path("z")))
    progress: list[tuple[int, int]] = []
    report = merge(MergeConfig(**given), Watch(progress=lambda done, total: progress.append((done, total))))
    assert progress[-1] == (report.bytes_read + report.bytes_written,) * 2
    assert weights_of(tuned.output)["positions.weight"].tolist() == [1, 2, 3]


def test_a_merge_that_no_path_names_is_a_warning(tuned: SimpleNamespace) -> None:
    given = weighted(tuned.path("a"), tuned.path("b"))
    notes = ModelMerger(MergeConfig(**tuned.config(**given, merges={"soup": given}))).check_compatibility()
    assert [(note.where, note.severity) for note in notes if note.severity == "warning"] == [("merges.soup", "warning")]


def test_copied_tensors_that_differ_are_refused_before_the_first_write(tmp_path: Path, tuned: SimpleNamespace) -> None:
    for number, name in enumerate("xyz"):
        with_positions(tmp_path, name, number, [1, 2, 3 + (name == "y")])
    given = tuned.config(**weighted(tuned.inner(weighted(tuned.path("x"), tuned.path("y"))), tuned.path("z")))
    with pytest.raises(ModelCompatibilityError, match=r"positions.weight: holds I64 numbers.*'y' differs from 'x'"):
        merge(MergeConfig(**given))
    assert not tuned.output.exists()
    assert not staging_path(tuned.output).exists()


def test_a_torch_dtype_of_its_own_rounds_the_inner_merge(tuned: SimpleNamespace) -> None:
    within = weighted(tuned.path("a"), tuned.path("b"), torch_dtype="float16")
    given = weighted(tuned.inner(within), tuned.path("c"), torch_dtype="float32")
    rounded = assert_as_published(tuned.config(**given), tuned.folder)
    within["options"] = {}
    full = merge_of(given)
    assert any(not torch.equal(rounded[name], full[name]) for name in full)


def test_float64_stays_float64(tmp_path: Path, tuned: SimpleNamespace) -> None:
    for number, name in enumerate("xyz"):
        write_model(tmp_path / name, random_tensors(number, torch.float64))
    given = weighted(tuned.inner(weighted(tuned.path("x"), tuned.path("y"))), tuned.path("z"))
    merged = merge_of(given)
    x, y, z = (weights_of(tmp_path / name) for name in "xyz")
    for name, value in merged.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, x[name] / 4 + y[name] / 4 + z[name] / 2, rtol=1e-14, atol=1e-17)


def test_config_and_tokenizer_come_from_the_innermost_donor(tuned: SimpleNamespace) -> None:
    (tuned.folder / "b" / "config.json").write_text(json.dumps({**CONFIG, "note": "of b"}))
    (tuned.folder / "b" / "tokenizer.json").write_text('{"of": "b"}')
    deepest = weighted(tuned.path("b"), tuned.path("a"))
    given = weighted(tuned.inner(weighted(tuned.inner(deepest), tuned.path("c"))), tuned.path("d"))
    merge(MergeConfig(**tuned.config(**given)))
    written = json.loads((tuned.output / "config.json").read_text())
    assert (written["note"], written["torch_dtype"]) == ("of b", "bfloat16")
    assert (tuned.output / "tokenizer.json").read_text() == '{"of": "b"}'


def test_the_plan_the_manifest_and_the_card_show_the_tree(
    tuned: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    (tuned.folder / "a" / "README.md").write_text("---\nlicense: mit\n---\n")
    for name in "abc":
        (tuned.folder / name / "LICENSE").write_text(f"licence of {name}")
    within = slerp(tuned.path("a"), tuned.path("b"), 0.25)
    given = tuned.config(**weighted(tuned.inner(within, weight=0.6, name="blend"), tuned.path("c", weight=0.4)))
    file = tuned.folder / "merge.json"
    file.write_text(json.dumps(given))

    text = command("plan", file, "--no-trial").out
    assert text.startswith(
        f"""weighted of 2 models
  blend: weight 0.6, slerp of 2 models (interpolation_factor 0.25)
    a: weight 1, gives config and tokenizer ({tuned.folder}/a)
    b: weight 1 ({tuned.folder}/b)
  c: weight 0.4 ({tuned.folder}/c)
"""
    )
    told = json.loads(command("plan", file, "--no-trial", "--json").out)["models"][0]
    assert told["merge"]["strategy"] == "slerp"
    assert told["merge"]["options"] == {"interpolation_factor": 0.25}
    assert [model["name"] for model in told["merge"]["models"]] == ["a", "b"]
    assert told["merge"]["tensors"][0]["action"] == "combine"

    assert command("merge", file).status == 0
    manifest = json.loads((tuned.output / "modelmerger.json").read_text())
    (blend, _) = manifest["sources"]
    assert manifest["config"]["models"][0]["merge"]["models"] == [{"path": "a"}, {"path": "b"}]
    assert (blend["merge"]["strategy"], blend["merge"]["plan"]) == ("slerp", told["merge"]["digest"])
    assert [(source["name"], source["weight"]) for source in blend["merge"]["sources"]] == [("a", 1), ("b", 1)]
    size = (tuned.folder / "a" / "model.safetensors").stat().st_size
    assert blend["merge"]["sources"][0]["files"] == [{"name": "model.safetensors", "size": size}]
    card = (tuned.output / "README.md").read_text()
    assert "base_model:\n- a\n- b\n- c\n" in card
    assert "| blend | slerp of: |\n| ↳ a | mit |\n| ↳ b | not stated |\n| c | not stated |" in card
    licences = {path.parent.name: path.read_text() for path in (tuned.output / "licenses").rglob("LICENSE")}
    assert licences == {name: f"licence of {name}" for name in "abc"}


def test_what_is_within_decides_the_plan(tuned: SimpleNamespace) -> None:
    def digest(**changed: Any) -> str:
        inner = weighted(
            tuned.path("a", weight=changed.get("weight", 0.5)), tuned.path("b"), **changed.get("options", {})
        )
        return ModelMerger(MergeConfig(**tuned.config(**weighted(tuned.inner(inner), tuned.path("c"))))).plan().digest

    first = digest()
    assert digest() == first
    assert (
        len({first, digest(weight=0.25), digest(options={"torch_dtype": "float16"}), digest(options={"seed": 3})}) == 4
    )
    tensors = weights_of(tuned.folder / "a")
    save_file(
        {**tensors, "model.norm.weight": tensors["model.norm.weight"] * 2}, tuned.folder / "a" / "model.safetensors"
    )
    assert digest() != first


def test_a_killed_merge_is_resumed_and_another_inner_weight_begins_anew(
    tuned: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_block(monkeypatch, 1 << 12)

    def config(weight: float) -> Config:
        inner = slerp(tuned.path("a", weight=weight), tuned.path("b", weight=0.5), None)
        return tuned.config(**weighted(tuned.inner(inner), tuned.path("c"), low_memory_mode=True))

    steps = Steps()
    merge(MergeConfig(**config(0.5)), Watch(step=steps))
    expected = directory_state(tuned.output)
    written = [number for number, (name, _) in enumerate(steps.seen, 1) if name == "write"]
    for at in (written[len(written) // 2], len(steps.seen) // 2):
        shutil.rmtree(tuned.output)
        assert killed_merge(config(0.5), at) == -signal.SIGKILL
        report = merge(MergeConfig(**config(0.5)))
        assert report.bytes_reused > 0
        assert directory_state(tuned.output) == expected

    shutil.rmtree(tuned.output)
    assert killed_merge(config(0.5), written[len(written) // 2]) == -signal.SIGKILL
    report = merge(MergeConfig(**config(0.4)))
    assert report.bytes_reused == 0
    assert any("an unfinished merge of another plan" in note.message for note in report.notes)


def test_nan_names_the_innermost_model(tuned: SimpleNamespace) -> None:
    tensors = weights_of(tuned.folder / "a")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, tuned.folder / "a" / "model.safetensors")
    middle = weighted(tuned.inner(weighted(tuned.path("a"), tuned.path("b"))), tuned.path("c"))
    given = tuned.config(**weighted(tuned.inner(middle), tuned.path("d")))
    expected = rf"{tuned.folder}/a: model.norm.weight: 'a' holds 1 NaN\. Repair"
    with pytest.raises(NumericError, match=expected) as caught:
        merge(MergeConfig(**given))
    assert len(caught.value.problems) == 1
    middle["options"] = {"allow_nonfinite": True}
    middle["models"][0]["merge"]["options"] = {"allow_nonfinite": True}
    with pytest.raises(NumericError, match=expected) as caught:
        merge(MergeConfig(**given))
    assert len(caught.value.problems) == 1
    given["options"] = {"allow_nonfinite": True}
    del middle["options"], middle["models"][0]["merge"]["options"]
    merge(MergeConfig(**given))
    assert weights_of(tuned.output)["model.norm.weight"].isnan().sum() == 1


def test_what_does_not_fit_the_dtype_of_an_inner_merge_is_said_of_that(tuned: SimpleNamespace) -> None:
    within = weighted(
        tuned.path("a", weight=1e9), tuned.path("b", weight=1e9), normalize_weights=False, torch_dtype="float16"
    )
    with pytest.raises(NumericError, match=r"^models\[0\]\.merge: .*the values do not fit in F16"):
        merge(MergeConfig(**tuned.config(**weighted(tuned.inner(within), tuned.path("c")))))


def test_an_input_of_an_inner_merge_that_changes_stops_the_merge(tuned: SimpleNamespace) -> None:
    from modelmerger import InputChangedError

    def touch(_: str, path: Path) -> None:
        if path.name == "modelmerger.json":
            (tuned.folder / "b" / "model-00001-of-00002.safetensors").touch()

    given = tuned.config(**weighted(tuned.inner(weighted(tuned.path("a"), tuned.path("b"))), tuned.path("c")))
    with pytest.raises(InputChangedError, match="b/model-00001-of-00002"):
        merge(MergeConfig(**given), Watch(step=touch))
    assert not tuned.output.exists()


def test_patterns_are_held_against_the_tensors_and_said_in_their_place(tuned: SimpleNamespace) -> None:
    within = weighted(tuned.path("a", weight={"*atention*": 0.5, "default": 1}), tuned.path("b"))
    given = tuned.config(**weighted(tuned.inner(within), tuned.path("c")))
    with pytest.raises(
        ConfigError, match=r"^models\[0\]\.merge\.models\[0\]\.weight: the pattern '\*atention\*' matches no"
    ):
        ModelMerger(MergeConfig(**given)).plan()


def test_models_in_memory_within(tuned: SimpleNamespace) -> None:
    live = random_tensors(5)
    tensors = {
        name: weights_of(write_model(tuned.folder / name, random_tensors(seed))) for name, seed in (("x", 6), ("y", 7))
    }
    given = weighted(tuned.inner(weighted({"path": live}, tuned.path("x"))), tuned.path("y"))
    config = MergeConfig(**tuned.config(**given))
    merge(config)
    for name, value in weights_of(tuned.output).items():
        expected = live[name].double() / 4 + tensors["x"][name].double() / 4 + tensors["y"][name].double() / 2
        torch.testing.assert_close(value.double(), expected, rtol=2**-8 * 1.01, atol=1e-9)
    manifest = json.loads((tuned.output / "modelmerger.json").read_text())
    assert manifest["config"]["models"][0]["merge"]["models"][0] == {"path": "<mapping of tensors in memory>"}
    with pytest.raises(ConfigError, match=r"models\[0\]\.merge\.models\[0\]\.path: is a model in memory"):
        config.to_yaml()


def test_models_that_are_kept_open_are_not_those_of_another_inner_merge(tuned: SimpleNamespace) -> None:
    def given(weight: float) -> Config:
        inner = weighted(tuned.path("a", weight=weight), tuned.path("b"))
        return tuned.config(**weighted(tuned.inner(inner), tuned.path("c"), cache_models=True))

    config = MergeConfig(**given(1.0))
    merger = ModelMerger(config)
    first = merger.plan().digest
    assert merger.plan().digest == first
    config.models[0]["merge"]["models"][0]["weight"] = 3.0
    assert merger.plan().digest != first


def test_workers_in_other_processes_make_the_same(
    tuned: SimpleNamespace, distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They open the merges within the merge themselves, and come to the same plan."""
    set_block(monkeypatch, 1 << 10)
    distribution("acme", "1.0", "[modelmerger.executors]\nprocesses = acme_processes\n", acme_processes=EXECUTOR)
    merges = {"soup": slerp(tuned.path("a"), tuned.path("b"), 0.25)}
    given = tuned.config(
        **slerp(tuned.inner(weighted({"path": "soup"}, tuned.path("c"))), {"path": "soup"}), merges=merges
    )
    merge(MergeConfig(**given))
    expected = directory_state(tuned.output)
    shutil.rmtree(tuned.output)
    given["options"]["executor"] = "processes"
    merge(MergeConfig(**given))
    assert directory_state(tuned.output) == expected


CUTTING = """
from attrs import frozen
from modelmerger import LayerView, hookimpl

adjusted = []

@frozen(kw_only=True)
class Options:
    keep_layers: tuple[int, ...] = ()

@hookimpl
def view_models(checkpoints, options):
    return [LayerView(checkpoint, options.keep_layers) for checkpoint in checkpoints] if options.keep_layers else None

@hookimpl
def adjust_config(name, config, settings):
    adjusted.append((name, settings.where))
    return {**config, "merged_in": [*config.get("merged_in", ()), settings.where]}
"""
DOUBLED = """
import torch
from modelmerger import CheckpointView, Traits, hookimpl

traits = Traits(models=(1, None))

class Doubled(CheckpointView):
    @property
    def content(self):
        return f"{super().content} doubled"

    def read(self, tensor, start, stop, buffer):
        super().read(tensor, start, stop, buffer)
        torch.frombuffer(buffer, dtype=getattr(torch, self.dtype_of(tensor)))[: stop - start].mul_(2)

    def dtype_of(self, tensor):
        return {"F32": "float32", "BF16": "bfloat16"}[self.tensors[tensor].dtype]

@hookimpl
def view_models(checkpoints):
    return [Doubled(checkpoint) for checkpoint in checkpoints]

@hookimpl
def find_coefficients(weights):
    return weights

@hookimpl
def adjust_config(name, config):
    return {**config, "doubled": config.get("doubled", 0) + 1}
"""
KEPT = [1, 2, 3, 0]
"""Not its own inverse, and no power of two of it is the order that models have."""


@pytest.fixture
def four_layers(tuned: SimpleNamespace) -> SimpleNamespace:
    """The models of `tuned` with four layers of one shape, and a config that lists them."""
    shapes = {"model.norm.weight": (3,), **{f"model.layers.{i}.w": (5, 4) for i in range(4)}}
    config = {**CONFIG, "num_hidden_layers": 4, "layer_types": ["zero", "one", "two", "three"]}
    for number, name in enumerate("abc"):
        shutil.rmtree(tuned.folder / name)
        write_model(tuned.folder / name, random_tensors(number, shapes=shapes), config)
    return tuned


def assert_viewed_as_published(given: Config, tuned: SimpleNamespace) -> Config:
    """A merge of `given` with layers in another order is that of the published inner merges; the config written."""
    flat = published_first(given, tuned.folder)  # where nothing is viewed: the option is of the run
    cut = {"keep_layers": KEPT, "torch_dtype": "bfloat16"}
    merge(MergeConfig(**tuned.config(**{**given, "options": cut})))
    verify(tuned.output)
    merge(MergeConfig(**{**flat, "options": cut, "output_path": str(tuned.folder / "flat")}))
    assert_same_bits(weights_of(tuned.output), weights_of(tuned.folder / "flat"))
    written: Config = json.loads((tuned.output / "config.json").read_text())
    assert (written["num_hidden_layers"], written["layer_types"]) == (4, ["one", "two", "three", "zero"])
    return written


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_layer_cut_acts_on_a_merge_as_a_whole(
    four_layers: SimpleNamespace, distribution: Callable[..., Path], alone: bool, named: bool
) -> None:
    """And not on the models within it as well."""
    install(distribution, [("plugin", "cutting", CUTTING)])
    within = weighted(four_layers.path("a"), four_layers.path("b", weight=3.0))
    model = {"path": "soup"} if named else four_layers.inner(within)
    given = weighted(model, *([] if alone else [four_layers.path("c")]))
    assert_viewed_as_published({**given, **({"merges": {"soup": within}} if named else {})}, four_layers)
    a, b, c = (weights_of(four_layers.folder / name) for name in "abc")
    for name, value in weights_of(four_layers.output).items():
        seen = re.sub(r"\d", lambda number: str(KEPT[int(number[0])]), name)
        soup = a[seen].double() / 4 + b[seen].double() * 3 / 4
        expected = soup if alone else (soup + c[seen].double()) / 2
        torch.testing.assert_close(value.double(), expected, rtol=2**-8 * 1.01, atol=1e-9)


def test_layers_of_a_base_and_of_merges_within_merges_come_in_one_order(
    four_layers: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("plugin", "cutting", CUTTING)])
    deepest = weighted(four_layers.path("a"), four_layers.path("b"))
    middle = weighted(four_layers.inner(deepest), four_layers.path("c"))
    given = {
        "strategy": "task_arithmetic",
        "models": [four_layers.inner(middle), four_layers.path("b")],
        "base_model": str(four_layers.folder / "c"),
    }
    assert_viewed_as_published(given, four_layers)


def test_configs_are_adjusted_once(four_layers: SimpleNamespace, distribution: Callable[..., Path]) -> None:
    (module,) = install(distribution, [("plugin", "cutting", CUTTING)])
    middle = weighted(four_layers.inner(weighted(four_layers.path("a"))), four_layers.path("b"))
    given = weighted(four_layers.inner(middle), four_layers.path("c"), keep_layers=[3, 1])
    merge(MergeConfig(**four_layers.config(**given)))
    assert importlib.import_module(module).adjusted == [("config.json", ""), ("generation_config.json", "")]
    written = json.loads((four_layers.output / "config.json").read_text())
    assert (written["num_hidden_layers"], written["layer_types"]) == (2, ["three", "one"])
    assert written["merged_in"] == [""]


def test_a_strategy_views_the_models_of_its_own_merge(
    four_layers: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    """That is part of what it makes of them, wherever its merge stands."""
    install(distribution, [("strategy", "doubled", DOUBLED)])
    within = {"strategy": "doubled", "models": [four_layers.path("a", weight=0.5), four_layers.path("b", weight=1.0)]}
    given = weighted(four_layers.inner(within), four_layers.path("c"))
    assert_as_published(four_layers.config(**given), four_layers.folder)
    assert json.loads((four_layers.output / "config.json").read_text())["doubled"] == 1


def test_a_nan_behind_a_view_names_the_innermost_model(
    four_layers: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("plugin", "cutting", CUTTING)])
    within = slerp(four_layers.path("a"), four_layers.path("b"))
    given = four_layers.config(**weighted(four_layers.inner(within), four_layers.path("c"), keep_layers=KEPT))
    progress: list[tuple[int, int]] = []
    report = merge(MergeConfig(**given), Watch(progress=lambda done, total: progress.append((done, total))))
    assert progress[-1] == (report.bytes_read + report.bytes_written,) * 2
    manifest = json.loads((four_layers.output / "modelmerger.json").read_text())
    assert [source["name"] for source in manifest["sources"][0]["merge"]["sources"]] == ["a", "b"]
    tensors = weights_of(four_layers.folder / "a")
    tensors["model.layers.1.w"][0] = torch.inf
    save_file(tensors, four_layers.folder / "a" / "model.safetensors")
    given["output_path"] = str(four_layers.folder / "other")
    for options in ({}, {"allow_nonfinite": True}):
        within["options"] |= options
        with pytest.raises(NumericError, match=r"model\.layers\.1\.w: 'a' holds 4 infinities"):
            merge(MergeConfig(**given))
