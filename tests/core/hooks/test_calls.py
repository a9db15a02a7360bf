"""Which hooks a merge calls in what order, and what becomes of plugins that break their contract."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, write_model
from modelmerger import ConfigError, MergeConfig, PluginError, merge, merge_tensors
from modelmerger.testing import plan_in_memory
from safetensors.torch import load_file

from tests.core.plugging import WEIGHTS_SQUARED, install

Distribution = Callable[..., Path]
Command = Callable[..., SimpleNamespace]

WITNESS = """
import {diary}
from attrs import frozen
from modelmerger import hookimpl

@frozen
class Options:
    witnessed: bool = False

def note(entry):
    {diary}.calls.append(entry)

@hookimpl
def check_config(settings, options):
    note(f"check_config {{options.witnessed}}")

@hookimpl
def locate_model(reference):
    note(f"locate_model {{reference.name}}")

@hookimpl
def load_model(reference):
    note(f"load_model {{reference.name}}")

@hookimpl
def view_models(checkpoints, settings):
    note(f"view_models {{' '.join(c.name for c in checkpoints)}}")

@hookimpl
def check_compatibility(checkpoints):
    note(f"check_compatibility {{' '.join(c.name for c in checkpoints)}}")
    return []

@hookimpl
def save_model(tensors):
    note(f"save_model {{' '.join(t.name for t in tensors)}}")

@hookimpl
def adjust_config(name):
    note(f"adjust_config {{name}}")

@hookimpl
def run_slices(work):
    note("run_slices")

@hookimpl
def observe_slice(tensor_name):
    note(f"observe_slice {{tensor_name}}")

@hookimpl
def write_sidecars(plan):
    note("write_sidecars")
    return {{}}
"""
ELEMENTWISE = """
import {diary}
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None))

@hookimpl
def check_compatibility(checkpoints):
    {diary}.calls.append("check_compatibility by the strategy")
    return []

@hookimpl
def measure_tensor(tensors):
    {diary}.calls.append("measure_tensor")
    return torch.stack([t.double().sum() for t in tensors])

@hookimpl
def merge_tensor(tensors, tensor_name, measurements):
    {diary}.calls.append(f"merge_tensor {{tensor_name}} of {{len(measurements[0])}} models")
    return tensors[0] + tensors[1]

@hookimpl
def finish_tensor(merged):
    {diary}.calls.append("finish_tensor")
"""
LINEAR = """
import {diary}
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), needs_base=True, gram=True)

@hookimpl
def find_coefficients(gram):
    {diary}.calls.append("find_coefficients" + (" from the Gram matrix" if gram else ""))
    return [0.5, 0.25, 0.25] if gram else None
"""


@pytest.fixture
def diary(distribution: Distribution) -> list[str]:
    """What the witness plugin and the strategies `elementwise` and `linear` write down."""
    (name,) = install(distribution, [("plugin", "diary", "calls = []\ntraits = None")], "diary")
    sources = [("plugin", "witness", WITNESS), ("strategy", "elementwise", ELEMENTWISE), ("strategy", "linear", LINEAR)]
    install(distribution, [(kind, plugin, source.format(diary=name)) for kind, plugin, source in sources])
    calls: list[str] = importlib.import_module(name).calls
    return calls


@pytest.fixture
def two_tensors(tmp_path: Path) -> dict[str, Any]:
    """Models of two tensors each, of which the second is empty."""
    for number, name in enumerate(("first", "second", "base")):
        tensors = {"w": torch.full((4,), float(number + 1)), "empty": torch.zeros(0, 3)}
        write_model(tmp_path / name, tensors, {})
    models = [{"path": str(tmp_path / "first")}, {"path": str(tmp_path / "second")}]
    return {"models": models, "output_path": str(tmp_path / "merged")}


def test_the_order_of_the_hooks_of_a_merge(diary: list[str], two_tensors: dict[str, Any]) -> None:
    config = MergeConfig(**{"strategy": "elementwise", **two_tensors, "options": {"witnessed": True}})
    diary.clear()
    merge(config)
    assert diary == [
        # the config
        "check_config True",
        # the models, headers only
        "locate_model first",
        "load_model first",
        "locate_model second",
        "load_model second",
        "view_models first second",
        "check_compatibility first second",
        "check_compatibility by the strategy",
        # the plan
        "save_model empty w",
        "adjust_config config.json",
        "adjust_config generation_config.json",
        # everything beside the weights, before the first write
        "write_sidecars",
        # the weights
        "run_slices",
        "measure_tensor",
        "merge_tensor w of 2 models",
        "observe_slice w",
        "finish_tensor",
    ]


def test_the_order_of_the_hooks_of_a_linear_merge(diary: list[str], two_tensors: dict[str, Any]) -> None:
    base = str(Path(two_tensors["output_path"]).parent / "base")
    config = MergeConfig(**{"strategy": "linear", **two_tensors, "base_model": base})
    diary.clear()
    merge(config)
    assert diary == [
        "find_coefficients",  # weights that make no sense are refused with the config
        "check_config False",
        "locate_model first",
        "load_model first",
        "locate_model second",
        "load_model second",
        "locate_model base",
        "load_model base",
        "view_models first second base",
        "check_compatibility first second base",
        "find_coefficients",  # for each shape: which inputs have to be read?
        "find_coefficients",
        "save_model empty w",
        "adjust_config config.json",
        "adjust_config generation_config.json",
        "write_sidecars",
        "run_slices",
        "find_coefficients from the Gram matrix",
        "observe_slice w",
    ]


@pytest.mark.parametrize(
    ("options", "said", "asked"),
    [
        ({"verbose": 3}, "options.verbose: must be true or false, got 3", []),
        ({"witnessed": 3}, "options.witnessed: must be true or false, got 3", []),
        ({"witnesed": True}, "options: unknown key 'witnesed', did you mean 'witnessed'?", ["check_config False"]),
    ],
)
def test_only_plugins_whose_own_part_of_a_config_is_sound_are_asked_about_it(
    diary: list[str], two_tensors: dict[str, Any], options: dict[str, Any], said: str, asked: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(MergeConfig(**{"strategy": "elementwise", **two_tensors, "options": options}))
    assert str(caught.value) == said
    assert diary == asked


def test_a_plugin_that_knows_where_a_name_lies_is_asked_once_and_what_it_says_is_recorded(
    distribution: Distribution, two_tensors: dict[str, Any], tmp_path: Path
) -> None:
    source = f"""
from modelmerger import Location, Problem, hookimpl

asked = []

@hookimpl
def locate_model(reference):
    if reference.path.startswith("team:"):
        asked.append(reference.path)
        note = Problem("is the team's.", reference.path, severity="note")
        return Location("{tmp_path}/" + reference.path.removeprefix("team:"), "v7", [note])
"""
    (module,) = install(distribution, [("plugin", "team", source)])
    models = [{"path": "team:first", "name": "a"}, {"path": "team:first", "name": "b"}, two_tensors["models"][1]]

    report = merge(MergeConfig(**{**two_tensors, "strategy": "weighted", "models": models}))

    assert importlib.import_module(module).asked == ["team:first"]
    assert [str(note) for note in report.notes if "team" in note.message] == ["team:first: is the team's."]
    manifest = json.loads((tmp_path / "merged" / "modelmerger.json").read_bytes())
    assert [source.get("revision") for source in manifest["sources"]] == ["v7", "v7", None]
    weights = load_file(tmp_path / "merged" / "model.safetensors")["w"]
    torch.testing.assert_close(weights, torch.full((4,), (1 + 1 + 2) / 3))


def test_plugins_of_others_answer_before_the_built_in_ones(
    distribution: Distribution, two_tensors: dict[str, Any]
) -> None:
    source = """
from modelmerger import Layout, OutputFile, Placement, hookimpl

@hookimpl
def save_model(tensors):
    files = [OutputFile(f"{t.name}.raw", t.bytes, (), (Placement(t, 0),)) for t in tensors]
    return Layout("raw", files, {})

@hookimpl
def run_slices(work):
    worker = work.local()
    while task := work.take():
        work.done(worker.do(task))
    return True
"""
    install(distribution, [("plugin", "raw", source)])
    report = merge(MergeConfig(**{"strategy": "weighted", **two_tensors}))
    assert (
        torch.frombuffer(bytearray((Path(report.output) / "w.raw").read_bytes()), dtype=torch.float32).tolist()
        == [1.5] * 4
    )
    assert not list(Path(report.output).glob("*.safetensors"))


def test_observations_are_summed_over_slices_and_named_by_plugin(
    distribution: Distribution, two_tensors: dict[str, Any]
) -> None:
    source = """
from modelmerger import hookimpl

@hookimpl
def observe_slice(tensors, merged):
    return {"inputs": len(tensors), "sum": float(merged.sum())}
"""
    install(distribution, [("plugin", "watcher", source)])
    report = merge(MergeConfig(**{"strategy": "weighted", **two_tensors}))
    assert report.observed == {"w": {"plugin watcher: inputs": 2, "plugin watcher: sum": 6.0}}
    manifest = json.loads((Path(report.output) / "modelmerger.json").read_bytes())
    assert manifest["observed"] == report.observed


def test_observers_are_told_which_inputs_they_get_and_only_who_wants_slices_is_called(
    distribution: Distribution, two_tensors: dict[str, Any]
) -> None:
    wanting = """
from modelmerger import hookimpl

@hookimpl
def wants_slices(settings):
    return settings.options.verbose

@hookimpl
def observe_slice(tensors, inputs, settings):
    assert len(tensors) == len(inputs)
    return {f"input {i} of {len(settings.models)}": 1 for i in inputs}
"""
    without_hook = """
from modelmerger import hookimpl

@hookimpl
def observe_slice(merged):
    return {"elements": merged.numel()}
"""
    install(distribution, [("plugin", "choosy", wanting)])
    for weight, read in ((0, [0]), (1, [0, 1])):
        two_tensors["models"][1]["weight"] = weight
        config = {"strategy": "weighted", **two_tensors}
        assert merge(MergeConfig(**(config | {"options": {"overwrite": True}}))).observed == {}
        report = merge(
            MergeConfig(**(config | {"options": {"overwrite": True, "verbose": True, "log_level": "ERROR"}}))
        )
        assert report.observed == {"w": {f"plugin choosy: input {i} of 2": 1 for i in read}}
    install(distribution, [("plugin", "always", without_hook)], name="acme-watch")
    report = merge(MergeConfig(**{"strategy": "weighted", **two_tensors, "options": {"overwrite": True}}))
    assert list(report.observed["w"]) == ["plugin always: elements"]


HEAD = """
import numpy, torch
from modelmerger import ConfigError, NumericError, Traits, hookimpl
"""
MERGES = """
traits = Traits(models=(2, None){traits})

@hookimpl
def merge_tensor(tensors, tensor_name):
    {body}
"""
COEFFICIENTS = """
traits = Traits(models=(2, None){traits})

@hookimpl
def find_coefficients(weights, gram):
    {body}
"""
SUMS = MERGES.format(traits="", body="return tensors[0] + tensors[1]")
BROKEN_STRATEGIES = {
    "raises": (MERGES, "", "raise RuntimeError('boom\\nbang')", "raised RuntimeError in merge_tensor: boom\\nbang"),
    "exits": (MERGES, "", "raise SystemExit(0)", "raised SystemExit in merge_tensor: 0"),
    "pretends": (MERGES, "", "raise KeyboardInterrupt", "raised KeyboardInterrupt in merge_tensor"),
    "shape": (MERGES, "", "return tensors[0][:3] + 0", "gave float32 of shape [3] where a tensor, float32 of shape ["),
    "rows": (MERGES, ", granularity='rowwise'", "return tensors[0].T.clone()", "of shape [16, 24] where a tensor, float32 of shape [24, 16], is due"),
    "dtype": (MERGES, "", "return (tensors[0] + 1).double()", "gave float64 of shape [384] where a tensor, float32 of shape [384], is due"),
    "none": (MERGES, "", "return None", "gave NoneType where a tensor, float32"),
    "numpy": (MERGES, "", "return tensors[0].numpy() + 1", "gave float32 of shape [384] where a tensor, float32 of shape [384], is due"),
    "alias": (MERGES, "", "return tensors[1]", "merge_tensor gave back one of its inputs; return a new tensor"),
    "view": (MERGES, "", "return tensors[1].flip(0).copy_(tensors[0]).view(-1) if 0 else tensors[0].view(-1)", "gave back one of its inputs"),
    "in place": (MERGES, "", "return tensors[0].add_(1)", "gave back one of its inputs"),
    "nan": (MERGES, "", "return tensors[0] * float('nan')", "merge_tensor made a NaN or an infinity of finite inputs"),
    "one infinity": (MERGES, "", "r = tensors[0] + 0; r.view(-1)[-1] = float('-inf'); return r", "merge_tensor made a NaN or an infinity of finite inputs"),
    "nan in whole": (MERGES, ", granularity='whole'", "return tensors[0] / 0 * 0", "merge_tensor made a NaN or an infinity of finite inputs"),
    "few": (COEFFICIENTS, "", "return [1.0]", "gave [1.0] where 2 finite numbers are due"),
    "many": (COEFFICIENTS, "", "return [1.0, 1.0, 1.0]", "gave [1.0, 1.0, 1.0] where 2 finite numbers are due"),
    "no base": (COEFFICIENTS, ", needs_base=True", "return [1.0, 1.0]", "gave [1.0, 1.0] where 3 finite numbers are due"),
    "nan coefficient": (COEFFICIENTS, "", "return [1.0, float('nan')]", "gave [1.0, nan] where 2 finite numbers are due"),
    "infinite": (COEFFICIENTS, "", "return [1.0, float('inf')]", "gave [1.0, inf] where 2 finite numbers are due"),
    "texts": (COEFFICIENTS, "", "return ['1', '2']", "gave ['1', '2'] where 2 finite numbers are due"),
    "text": (COEFFICIENTS, "", "return '12'", "gave '12' where 2 finite numbers are due"),
    "number": (COEFFICIENTS, "", "return 0.5", "gave 0.5 where 2 finite numbers are due"),
    "nothing": (COEFFICIENTS, "", "return None", "gave None where 2 finite numbers are due"),
    "division": (COEFFICIENTS, "", "return [1 / 0, 1]", "raised ZeroDivisionError in find_coefficients: division by zero"),
    "gram ignored": (COEFFICIENTS, ", gram=True", "return None", "gave None where 2 finite numbers are due"),
    "gram raises": (COEFFICIENTS, ", gram=True", "return gram and [gram[5][5], 0]", "raised IndexError in find_coefficients"),
    "finish raises": (SUMS + "@hookimpl\ndef finish_tensor(merged):\n    {body}", "", "merged.resize_(1 << 40, 5, 'x')", "in finish_tensor"),
    "finish nan": (SUMS + "@hookimpl\ndef finish_tensor(merged):\n    {body}", "", "merged.fill_(float('nan'))", "finish_tensor made a NaN or an infinity of finite inputs"),
    "finish counts": (SUMS + "@hookimpl\ndef finish_tensor(merged):\n    {body}", "", "return ['many']", "finish_tensor gave ['many'] where whole numbers by name are due"),
    "measure float32": (SUMS + "@hookimpl\ndef measure_tensor(tensors):\n    {body}", "", "return tensors[0].sum()", "measure_tensor gave float32 of shape [] where float64 or int64 is due"),
    "measure number": (SUMS + "@hookimpl\ndef measure_tensor(tensors):\n    {body}", "", "return 3.5", "measure_tensor gave float where float64 or int64 is due"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_STRATEGIES)
def test_a_strategy_that_breaks_its_contract_is_named_with_the_tensor(
    case: str, distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """D1"""
    template, traits, body, reason = BROKEN_STRATEGIES[case]
    install(
        distribution, [("strategy", "careless", HEAD + template.format(traits=traits, body=body))], "acme-merge", "1.0"
    )
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config | {"base_model": str(models.base)}))
    before = {name: directory_state(getattr(models, name)) for name in ("a", "b", "base")}
    result = command("merge", path, "--set", "strategy=careless")
    assert result.status == 7, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 300
    assert "strategy 'careless' from acme-merge 1.0" in line
    assert reason in line
    named_at_config_time = template is COEFFICIENTS and "gram" not in traits
    assert ("model." in line) is not named_at_config_time
    assert not models.output.exists()
    assert before == {name: directory_state(getattr(models, name)) for name in before}


def test_after_a_plugin_failed_the_next_merge_works(
    distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """D1"""
    body = "if tensor_name != 'model.norm.weight': return tensors[0] + 1\n    raise ValueError('late')"
    install(distribution, [("strategy", "careless", HEAD + MERGES.format(traits="", body=body))])
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config))
    failed = command("merge", path, "--set", "strategy=careless")
    assert failed.status == 7
    assert (
        "model.norm.weight: strategy 'careless' from acme-merge 1.0 raised ValueError in merge_tensor: late"
        in failed.err
    )
    assert command("merge", path).status == 0
    assert command("verify", models.output).status == 0


def test_nan_of_a_linear_strategy_is_the_arithmetics(
    distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """C2: Coefficients are checked, so what overflows in the sum is no fault of the plugin."""
    body = COEFFICIENTS.format(traits="", body="return [3e38, 3e38]")
    install(distribution, [("strategy", "enormous", HEAD + body)])
    models.tensors["a"]["model.norm.weight"].fill_(4.0)
    write_model(models.a, models.tensors["a"])
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config))
    result = command("merge", path, "--set", "strategy=enormous")
    assert result.status == 5
    assert "model.norm.weight: all inputs are finite, and the merge itself made a NaN or an infinity" in result.err
    assert not models.output.exists()


def test_a_strategy_may_say_itself_that_a_result_is_undefined(
    distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    body = MERGES.format(traits="", body="raise NumericError('opposite tensors have no mean direction.')")
    install(distribution, [("strategy", "honest", HEAD + body)])
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config))
    result = command("merge", path, "--set", "strategy=honest")
    assert (result.status, result.err) == (
        5,
        "error: model.embed_tokens.weight: opposite tensors have no mean direction.\n",
    )


def test_nan_in_an_input_is_not_blamed_on_the_strategy(
    distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """C1"""
    install(distribution, [("strategy", "summing", HEAD + SUMS)])
    models.tensors["b"]["model.norm.weight"][3] = float("nan")
    write_model(models.b, models.tensors["b"])
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config))
    result = command("merge", path, "--set", "strategy=summing")
    assert result.status == 5
    assert f"{models.b}: model.norm.weight: 'b' holds 1 NaN" in result.err


def test_very_large_finite_numbers_are_finite(distribution: Distribution, tmp_path: Path) -> None:
    """The largest and the smallest value of a tensor may add up to infinity."""
    install(distribution, [("strategy", "copying", HEAD + MERGES.format(traits="", body="return tensors[1].clone()"))])
    for name in ("a", "b"):
        write_model(tmp_path / name, {"w": torch.full((4,), 1.6e308, dtype=torch.float64)}, None)
    models = [{"path": str(tmp_path / name), "weight": w} for name, w in (("a", 1.0), ("b", 0.5))]
    for strategy in ("copying", "weighted"):
        output = tmp_path / f"by-{strategy}"
        merge(MergeConfig(strategy=strategy, models=models, output_path=str(output)))
        merged = load_file(output / "model.safetensors")["w"]
        assert merged.tolist() == pytest.approx([1.6e308] * 4, rel=1e-15)


def test_a_statistic_that_changes_its_shape_is_refused(distribution: Distribution, tmp_path: Path) -> None:
    body = SUMS + "@hookimpl\ndef measure_tensor(tensors):\n    return torch.zeros(1 + tensors[0].numel() % 2).double()"
    install(distribution, [("strategy", "unsteady", HEAD + body)])
    for name in ("a", "b"):
        write_model(tmp_path / name, {"w": torch.zeros((1 << 18) + 1)}, None)
    models = [{"path": str(tmp_path / name)} for name in ("a", "b")]
    with pytest.raises(
        PluginError, match=r"w: strategy 'unsteady' from acme-merge 1.0: measure_tensor gave another shape"
    ):
        merge(MergeConfig(strategy="unsteady", models=models, output_path=str(tmp_path / "merged")))
    assert not (tmp_path / "merged").exists()


UNFAITHFUL = "import attrs, modelmerger; view = modelmerger.CheckpointView(checkpoints[1]); {change}; return [checkpoints[0], view]"
CARELESS_VIEW = "import modelmerger; type('View', (modelmerger.CheckpointView,), {'read': lambda *_: None})"
UNKNOWN = """
    import modelmerger
    if reference.name == 'b':
        view = type('Own', (modelmerger.Checkpoint,), {{'read': lambda *_: None}})()
        view.name, view.tensors = 'b', {{'odd': modelmerger.TensorInfo({dtype!r}, {shape!r})}}
        return view
"""
SILENT = """
    class Silent(Exception):
        def __str__(self):
            raise ValueError
    raise Silent
"""
BROKEN_PLUGINS = {
    "locate_model(reference)": ("return '/a/path'", "locate_model gave /a/path instead of a Location or None"),
    "load_model(reference)": ("return 'a checkpoint'", "load_model gave a checkpoint instead of a Checkpoint or None"),
    "load_model(context)": ("raise KeyError('x')", "raised KeyError in load_model: 'x'"),
    "view_models(checkpoints)": ("return checkpoints[:1]", "view_models gave 1 Checkpoint instead of 2 Checkpoints or None"),
    "view_models()": ("return 'ab'", "view_models gave ab instead of 2 Checkpoints or None"),
    "view_models(settings)": ("raise KeyError(settings.donor)", "raised KeyError in view_models: 0"),
    "view_models(checkpoints, settings)": ("return list(reversed(checkpoints))", "view_models did not keep the name of 'a'"),
    "view_models(checkpoints, options)": (UNFAITHFUL.format(change="view.files = ()"), "view_models did not keep the files of 'b'"),
    "view_models(options, checkpoints)": (UNFAITHFUL.format(change="view.donor = attrs.evolve(view.donor, directory=None)"), "view_models did not keep the directory of 'b'"),
    "view_models(checkpoints, settings, options)": (f"{CARELESS_VIEW}; return None", "raised TypeError in view_models: View overrides read and not content"),
    "adjust_config(config)": ("return list(config)", "adjust_config gave ['model_type'"),
    "adjust_config(name, config)": ("return {**config, 'auto_map': {}}", "adjust_config gave config.json auto_map, which can make a loader run code"),
    "adjust_config(plan)": ("raise ValueError(plan.donor)", "raised ValueError in adjust_config: 0"),
    "load_model(reference, context)": (UNKNOWN.format(dtype="F31", shape=(2,)), "load_model gave the dtype 'F31' instead of one that safetensors has"),
    "load_model(context, reference)": (UNKNOWN.format(dtype="F32", shape=(2, -1)), "load_model gave the shape (2, -1) instead of a tuple of whole numbers"),
    "view_models(settings, checkpoints)": (UNFAITHFUL.format(change="view.tensors = {'odd': modelmerger.TensorInfo('F31', ())}"), "view_models gave the dtype 'F31' instead of one"),
    "view_models(settings, options)": ("raise MemoryError", "raised MemoryError in view_models: "),
    "adjust_config(config, plan)": ("return {**config, 'rope': float('nan')}", "instead of a dict of plain JSON or None"),
    "adjust_config(plan, config)": (SILENT, "raised Silent in adjust_config: (what it says cannot be had)"),
    "check_compatibility(checkpoints)": ("return ['too short']", "check_compatibility gave ['too short'] instead of Problems"),
    "check_compatibility(settings)": ("yield from settings", "raised TypeError in check_compatibility"),
    "save_model(tensors)": ("return [t.name for t in tensors]", "save_model gave ['model.embed_tokens.weight'"),
    "save_model(max_shard_size)": ("return max_shard_size / 0", "raised ZeroDivisionError in save_model"),
    "place_tensors(names)": ("return names", "place_tensors gave ['model.embed_tokens.weight'"),
    "place_tensors()": ("return {'model.': '../x'}", "instead of None, or plain folders by what names begin with"),
    "place_tensors(settings)": ("return {'model.': 'x', 'model.layers.': 'y'}", "'model.' goes into x"),
    "run_slices(work)": ("return True", "run_slices came back before all of the work was done"),
    "run_slices()": ("raise OSError('no cluster')", "raised OSError in run_slices: no cluster"),
    "wants_slices(settings)": ("return 'always'", "wants_slices gave always instead of True or False"),
    "write_sidecars(plan)": ("return ['README.md']", "write_sidecars gave ['README.md'] instead of contents by file name"),
    "write_sidecars(settings)": ("return {'../x': b''}", "wants to write '../x', which is not a plain file name"),
    "write_sidecars(checkpoints)": ("return {'x': 'text'}", "wants to write 'x', which is not a plain file name with bytes"),
    "write_sidecars()": ("return {'model.safetensors': b''}", "model.safetensors is written twice: by the weights and by"),
    "check_config(settings)": ("return ['too short']", "check_config gave ['too short'] instead of Problems"),
    "name_companions()": ("return 'README.md'", "name_companions gave README.md instead of names of files"),
    "name_companions(options)": ("return ['../x']", "name_companions gave ['../x'] instead of names of files"),
}  # fmt: skip


@pytest.mark.parametrize("signature", BROKEN_PLUGINS)
def test_a_plugin_that_breaks_its_contract_is_named(
    signature: str, distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """D1"""
    body, reason = BROKEN_PLUGINS[signature]
    install(
        distribution,
        [("plugin", "careless", f"from modelmerger import hookimpl\n\n@hookimpl\ndef {signature}:\n    {body}\n")],
    )
    path = models.folder / "merge.json"
    path.write_text(json.dumps(config))
    result = command("merge", path)
    assert result.status == 7, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 300
    assert "plugin 'careless' from acme-merge 1.0" in line
    assert reason in line
    assert not models.output.exists()


FAILING_OBSERVERS = {
    "merged": ("return {'x': 'y'}", "observe_slice gave {'x': 'y'} instead of numbers by name"),
    "merged, tensors": ("return {'x': float('nan')}", "observe_slice gave {'x': nan} instead of finite numbers by name"),
    "tensors, merged": ("raise MemoryError", "raised MemoryError in observe_slice"),
    "tensor_name, merged": ("return {'x': 1} if 'mlp' in tensor_name else 1 / 0", "raised ZeroDivisionError in observe_slice"),
}  # fmt: skip


@pytest.mark.parametrize("arguments", FAILING_OBSERVERS)
def test_an_observer_that_fails_is_a_warning_and_observes_nothing(
    arguments: str, distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    path = models.folder / "merge.json"
    path.write_text(json.dumps(config))
    assert command("merge", path, "--output", models.folder / "without").status == 0
    body, reason = FAILING_OBSERVERS[arguments]
    head = "from modelmerger import hookimpl\n\n@hookimpl\ndef observe_slice("
    counts = f"{head}merged):\n    return {{'n': merged.numel()}}\n"
    install(distribution, [("plugin", "careless", f"{head}{arguments}):\n    {body}\n"), ("plugin", "counts", counts)])

    result = command("merge", path, "--json")

    assert result.status == 0
    (line,) = (line for line in result.err.splitlines() if line.startswith("warning: "))
    assert f"plugin 'careless' from acme-merge 1.0{' raised' if 'raised' in reason else ': observe'}" in line
    assert reason in line
    assert "MODELMERGER_DISABLE_PLUGINS=careless switches it off. The merge goes on without what it observes." in line
    manifest = json.loads((models.output / "modelmerger.json").read_bytes())
    assert {name for found in manifest["observed"].values() for name in found} == {"plugin counts: n"}
    assert json.loads(result.out)["observed"] == manifest["observed"]
    for name in ("model.safetensors", "config.json"):
        assert (models.output / name).read_bytes() == (models.folder / "without" / name).read_bytes()


BROKEN_DECLARATIONS = {
    "Options = 3": "the options must be an attrs class, got 3",
    "import attrs\n@attrs.frozen\nclass Options:\n    x: int": "the option 'x' has no default. Give it one",
    "import attrs\n@attrs.frozen\nclass Options:\n    x: 'Nowhere' = 1": "the types of its options cannot be resolved",
    "sections = ['mine']": "'sections' must hold Sections",
    "sections = 3": "'sections' must hold Sections, got 3",
    "within_merges = ['view_models']": "'within_merges' must name hooks of its own",
    "within_merges = 'view_models'": "'within_merges' must name hooks of its own",
    "stand_ins = [3]": "'stand_ins' must hold attrs classes, got [3]",
    "within_merges = True": "'within_merges' must name hooks of its own",
}


@pytest.mark.parametrize("source", BROKEN_DECLARATIONS)
def test_a_plugin_that_declares_itself_wrongly_is_named(
    source: str, distribution: Distribution, config: dict[str, Any]
) -> None:
    install(distribution, [("plugin", "careless", source)])
    with pytest.raises(PluginError, match=r"plugin 'careless' from acme-merge 1\.0") as refused:
        MergeConfig(**config)
    assert BROKEN_DECLARATIONS[source] in str(refused.value)


def test_the_culprit_is_named_also_through_a_wrapped_function(
    distribution: Distribution, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    source = """
import functools
from modelmerger import hookimpl

def fail(plan):
    raise RuntimeError("deep inside")

@hookimpl
@functools.wraps(fail)
def write_sidecars(*args, **kwargs):
    return fail(*args, **kwargs)
"""
    install(distribution, [("plugin", "wrapped", source)])
    with pytest.raises(
        PluginError, match=r"plugin 'wrapped' from acme-merge 1.0 raised RuntimeError in write_sidecars"
    ):
        merge(MergeConfig(**config))


REFUSED = {
    "newer hooks": ("hooks_version = 2\n" + WEIGHTS_SQUARED, "wants hooks 2, this is 1."),
    "no traits": (WEIGHTS_SQUARED.replace("traits =", "trait ="), "has no 'traits'. Give its module `traits = Traits(…)`."),
    "nothing to do": ("from modelmerger import Traits\ntraits = Traits()", "must have one of the hooks find_coefficients, merge_tensor and compose_model, it has 0"),
    "two ways": (WEIGHTS_SQUARED + "\n@hookimpl\ndef merge_tensor(tensors): ...", "must have one of the hooks find_coefficients, merge_tensor and compose_model, it has 2"),
    "a third way": (WEIGHTS_SQUARED + "\n@hookimpl\ndef compose_model(): ...", "has compose_model, so find_coefficients would never be called"),
    "misspelt hook": (WEIGHTS_SQUARED.replace("find_coefficients", "find_coeficients"), "there is no hook 'find_coeficients', did you mean 'find_coefficients'?"),
    "misspelt argument": (WEIGHTS_SQUARED.replace("(weights)", "(wieghts)"), ": find_coefficients has no argument 'wieghts', did you mean 'weights'?"),
    "unknown argument": (WEIGHTS_SQUARED.replace("(weights)", "(weights, zzz)"), ": find_coefficients has no argument 'zzz' (it has weights, model_options, options, gram, shape)."),
    "traits of no kind": (WEIGHTS_SQUARED + "traits = 3", ": 'traits' must be a Traits, got 3. Give its module `traits = Traits(…)`."),
    "a wrong trait": ("from modelmerger import Traits\ntraits = Traits(inputs='x')", "could not be imported: ValueError: inputs must be one of models, updates, got 'x'"),
    "wraps a collecting hook": (WEIGHTS_SQUARED + "\n@hookimpl(wrapper=True)\ndef write_sidecars():\n    return (yield)", "wraps write_sidecars; only hooks with one result can be wrapped"),
    "old wrapper": (WEIGHTS_SQUARED + "\n@hookimpl(hookwrapper=True)\ndef save_model():\n    yield", "wraps save_model; only hooks with one result can be wrapped, with wrapper=True"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_hooks_is_refused_when_it_registers(
    case: str, distribution: Distribution, command: Command, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    source, reason = REFUSED[case]
    install(distribution, [("strategy", "foreign", source)])
    path = models.folder / "merge.yaml"
    path.write_text(json.dumps(config))
    result = command("check", path, "--set", "strategy=foreign")
    assert result.status == 7
    (line,) = result.err.splitlines()
    assert line.startswith("error: strategy 'foreign' from acme-merge 1.0")
    assert reason in line


def test_the_version_of_the_hooks_that_is_this_one_may_be_said(distribution: Distribution) -> None:
    install(distribution, [("strategy", "foreign", "hooks_version = 1\n" + WEIGHTS_SQUARED)])
    assert plan_in_memory("foreign", [{"t": torch.ones(1)}], weights=[3]).plan.tensors[0].coefficients == (9.0,)


def test_a_plugin_may_be_an_object_and_may_wrap_a_hook_with_one_result(
    distribution: Distribution,
) -> None:
    source = """
from modelmerger import hookimpl

class Plugin:
    @hookimpl(wrapper=True)
    def find_coefficients(self, weights):
        found = yield
        return [2 * c for c in found]

plugin = Plugin()
"""
    distribution(
        "acme-merge",
        "1.0",
        "[modelmerger.plugins]\ndoubling = acme_doubling_object:plugin\n",
        acme_doubling_object=source,
    )
    merge = plan_in_memory("weighted", [{"t": torch.ones(1)}] * 2, weights=[0.6, 0.4])
    assert merge.plan.tensors[0].coefficients == (1.2, 0.8)


DEFAULTS = """
from attrs import frozen
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@frozen
class Options:
    factor: float = 5.0

@hookimpl
def find_coefficients(weights, mine=2, shape="none", options=None):
    assert shape != "none"
    return [weight * mine * options.factor for weight in weights]
"""
STAMP = """
from attrs import frozen
from modelmerger import hookimpl

@frozen
class Options:
    stamp: str = "none"

@hookimpl
def write_sidecars(settings=None, options=None, mine=3):
    return {"STAMP": f"{settings.strategy} {options.stamp} {mine}".encode()}
"""


def test_arguments_of_a_hook_are_handed_over_though_they_have_a_default(
    distribution: Distribution, config: dict[str, Any], models: SimpleNamespace
) -> None:
    install(distribution, [("strategy", "foreign", DEFAULTS), ("plugin", "stamp", STAMP)])
    ones = {"w": torch.ones(2)}
    merged = merge_tensors("foreign", [ones, ones], weights=[1, 2], options={"factor": 10.0})
    assert merged["w"].tolist() == [60.0, 60.0]
    merge(MergeConfig(**config | {"strategy": "foreign", "options": {"stamp": "x", "factor": 0.5}}))
    assert (models.output / "STAMP").read_text() == "foreign x 3"
