"""Merges of tensors in memory: against numpy in float64, closed forms, and merges of the same models on the disk."""

import doctest
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_tensors, write_model
from inputs.watching import watched
from modelmerger import (
    BlockRecord,
    ConfigError,
    InputError,
    Layout,
    MergeConfig,
    MergeError,
    ModelCompatibilityError,
    ModelMerger,
    NumericError,
    OutputError,
    Problem,
    Sink,
    merge,
    merge_tensors,
)
from safetensors.torch import load_file

from tests.core.plugging import WEIGHTS_SQUARED, install

BUILT_IN = ("weighted", "sequential", "task_arithmetic", "slerp")
SHAPES: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (300, 7), "model.norm.weight": (7,), "scalar": ()}
Tensors = dict[str, torch.Tensor]

ROWS = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity="rowwise")

@hookimpl
def merge_tensor(tensors):
    return sum(tensors) / sum(tensors).norm(dim=-1, keepdim=True)
"""


def three(dtype: torch.dtype = torch.bfloat16, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> list[Tensors]:
    """A base and two models near it."""
    base = random_tensors(0, dtype, dict(shapes))
    return [base, *(random_tensors(seed, dtype, dict(shapes), near=base) for seed in (1, 2))]


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_tensors_are_what_the_same_merge_writes(strategy: str, tmp_path: Path) -> None:
    base, *models = three()
    base, with_base = (base, True) if strategy == "task_arithmetic" else (None, False)
    paths = [str(write_model(tmp_path / name, tensors)) for name, tensors in zip("ab", models, strict=True)]
    entries = [{"path": path, "weight": weight} for path, weight in zip(paths, (1, 0.5), strict=True)]
    on_disk = str(write_model(tmp_path / "base", base)) if with_base and base else None
    merge(MergeConfig(strategy, entries, on_disk, str(tmp_path / "merged")))

    with watched() as seen:
        merged = merge_tensors(strategy, models, base, weights=[1, 0.5])

    assert not seen.opened_in(tmp_path)
    expected = load_file(tmp_path / "merged/model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_the_mean_is_that_of_numpy_whatever_the_tensors_are_like() -> None:
    matrix = torch.randn(40, 30)
    first = {
        "rows": matrix.t(),
        "part": matrix[3:20, 5:9],
        "trained": torch.nn.Parameter(torch.randn(5)),
        "one": torch.tensor(1.5),
        "steps": torch.tensor([7]),
        "none": torch.empty(0, 4),
    }
    second = {"rows": torch.randn(30, 40, dtype=torch.float64), "part": torch.randn(17, 4).half()}
    second |= {"trained": torch.randn(10)[::2], "one": torch.tensor(0.5)}
    second |= {name: first[name].clone() for name in ("steps", "none")}
    before = {name: tensor.detach().clone() for name, tensor in first.items()}

    merged = merge_tensors("weighted", [first, second], weights=[3, 1])

    for name in ("rows", "part", "trained", "one"):
        exact = (3 * first[name].detach().double().numpy() + second[name].double().numpy()) / 4
        np.testing.assert_array_equal(merged[name].numpy(), exact.astype(np.float32))
        assert (merged[name].dtype, merged[name].requires_grad) == (torch.float32, False)
        assert merged[name].is_contiguous()
    assert list(merged) == list(first)
    assert merged["steps"].tolist() == [7]
    assert merged["none"].shape == (0, 4)
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())


def test_options_weights_and_what_the_strategy_wants_to_know_are_those_of_a_config() -> None:
    base, *models = ({"layers.0.w": torch.full((2,), x), "layers.1.w": torch.full((2,), x)} for x in (1.0, 2.0, 5.0))
    subtract = [{"operation": "add"}, {"operation": "subtract"}]
    options = {"scaling_factor": 0.5, "torch_dtype": "float64"}

    merged = merge_tensors(
        "task_arithmetic", models, base, weights=[[1, 0], 2], model_options=subtract, options=options
    )

    assert {name: tensor.tolist() for name, tensor in merged.items()} == {  # 1 + ½·(1·1 − 2·4) and 1 + ½·(0·1 − 2·4)
        "layers.0.w": [-2.5, -2.5],
        "layers.1.w": [-3.0, -3.0],
    }
    assert merged["layers.0.w"].dtype == torch.float64


def test_a_strategy_of_another_distribution_merges_tensors(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", "squares", WEIGHTS_SQUARED)])
    assert merge_tensors("squares", [{"t": torch.ones(1)}], weights=[3])["t"].tolist() == [9]


def test_modules_and_checkpoints_are_models_too(tmp_path: Path) -> None:
    module, mapping = torch.nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "bias": torch.ones(3)}
    path = str(write_model(tmp_path / "saved", {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}))
    opened = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": path}])).load_models()

    merged = merge_tensors("weighted", [module, mapping, *opened.values()], weights=[2, 1, 1])

    torch.testing.assert_close(merged["weight"], module.weight.detach() / 2 + 0.25)
    torch.testing.assert_close(merged["bias"], module.bias.detach() / 2 + 0.25)


def test_tensors_that_are_tied_are_merged_once_and_tied_again() -> None:
    models = []
    for number in (1.0, 3.0):
        embedding, other = torch.full((4,), number), torch.full((2,), -number)
        tied = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
        models.append(tied | {"encoder.w": other, "decoder.w": other})

    merged = merge_tensors("weighted", models)

    assert merged.keys() == models[0].keys()
    assert merged["lm_head.weight"] is merged["model.embed_tokens.weight"]
    assert merged["encoder.w"] is merged["decoder.w"]
    assert merged["lm_head.weight"].tolist() == [2] * 4
    assert merged["encoder.w"].tolist() == [-2] * 2
    models[1]["decoder.w"] = models[1]["decoder.w"] + 8
    apart = merge_tensors("weighted", models)
    assert (apart["encoder.w"].tolist(), apart["decoder.w"].tolist()) == ([-2] * 2, [2] * 2)


@pytest.mark.parametrize(
    ("models", "words", "error"),
    [
        ([{}], "models[0].path: is empty. Give tensors by their names", ConfigError),
        ([{"a": 1}], "models[0].path: holds no tensor. Is this the right object?", ConfigError),
        ([{"a": np.ones(2)}], "models[0].path: holds arrays of numpy. Make tensors of them: torch.from_numpy", ConfigError),
        (["./a"], "must be a mapping from names to tensors, a module or a checkpoint, got str", ConfigError),
        ([{"a": torch.ones(2), "b": 1}], "b: holds a int here, not a tensor.", InputError),
        ([{"w": torch.ones(2, device="meta")}], "w: is on the meta device", InputError),
        ([{"w": torch.ones(2)}, {"v": torch.ones(2)}], "w: 'model_0' has this tensor and 'model_1' lacks it.", ModelCompatibilityError),
        ([{"w": torch.ones(2)}, {"w": torch.ones(3)}], "w: has shape [3] here and [2] in 'model_0'.", ModelCompatibilityError),
        ([{"w": torch.ones(2)}, {"w": torch.ones(2) / 0}], "w: 'model_1' holds 2 infinities.", NumericError),
        ([{"t.weight": torch.arange(2)}, {"t.weight": torch.arange(2) + 1}], "t.weight: holds I64 numbers, which can only be taken over", ModelCompatibilityError),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_said(models: list[Any], words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        merge_tensors("weighted", models)


def test_arguments_that_do_not_fit_are_all_said() -> None:
    models = [{"w": torch.ones(2)}] * 2
    with pytest.raises(ConfigError) as refusal:
        merge_tensors("weighted", models, {}, weights=[1], model_options=[{}] * 3)
    assert [str(problem) for problem in refusal.value.problems] == [
        "base_model: is empty. Give tensors by their names",
        "weights: must be one a model: 1 given for 2 models",
        "model_options: must be one a model: 3 given for 2 models",
    ]
    with pytest.raises(ConfigError, match="slerp merges exactly two models, 1 given"):
        merge_tensors("slerp", models[:1])
    with pytest.raises(ConfigError, match="task_arithmetic needs base_model"):
        merge_tensors("task_arithmetic", models)
    with pytest.raises(ConfigError, match="out: contradicts 'sink'"):
        merge_tensors("weighted", models, out=models[0], sink=_no_sink)
    with pytest.raises(ConfigError, match=r"options\.torch_dtype: contradicts 'out'"):
        merge_tensors("weighted", models, out=models[0], options={"torch_dtype": "float16"})


def _no_sink(_: Layout) -> Sink:
    raise AssertionError


def test_the_example_works() -> None:
    (example,) = doctest.DocTestFinder().find(
        merge_tensors, "merge_tensors", globs={"torch": torch, "merge_tensors": merge_tensors}
    )
    assert doctest.DocTestRunner().run(example).failed == 0
    assert example.examples


# into what is there already


def test_a_module_gets_the_numbers_in_its_own_dtypes_with_one_rounding() -> None:
    """The models' dtypes, in which a merge without `out` would write, are narrower or wider."""
    first = {"weight": torch.full((1, 2), 1.0).bfloat16(), "bias": torch.tensor([1.0]), "scale": torch.tensor(1.0)}
    second = {name: torch.full_like(tensor, 1 + 2.0**-7) for name, tensor in first.items()}
    module = torch.nn.Linear(2, 1)
    module.bias.data = module.bias.data.double()
    module.register_buffer("scale", torch.tensor(0.0).bfloat16())
    kept = module.weight

    merged = merge_tensors("weighted", [first, second], weights=[1 - 2.0**-12, 2.0**-12], out=module)

    assert module.weight is kept
    assert merged["weight"].data_ptr() == kept.data_ptr()
    assert module.weight.tolist() == [[1 + 2.0**-19] * 2]
    assert (module.bias.item(), module.bias.dtype) == (1 + 2.0**-19, torch.float64)
    assert (module.scale.item(), module.scale.dtype) == (1, torch.bfloat16)
    assert merge_tensors("weighted", [first, second])["weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["weighted", "slerp", "rows"])
def test_a_merge_may_write_into_one_of_its_own_models(strategy: str, distribution: Callable[..., Path]) -> None:
    """Rows of the second strategy lie in two slices, and slerp reads everything twice."""
    install(distribution, [("strategy", "rows", ROWS)])
    shapes = {"model.embed_tokens.weight": (3001, 1501), "model.layers.0.w": (1501, 7), "b": (7,)}
    _, average, model = three(torch.float32, shapes)
    expected = merge_tensors(strategy, [average, model], weights=[0.9, 0.1])
    places = {name: tensor.data_ptr() for name, tensor in average.items()}

    merge_tensors(strategy, [average, model], weights=[0.9, 0.1], out=average)

    assert {name: tensor.data_ptr() for name, tensor in average.items()} == places
    assert all(torch.equal(average[name], expected[name]) for name in expected)


def test_a_tensor_that_another_one_is_read_from_is_not_overwritten() -> None:
    buffer = torch.arange(6.0)
    model, out = {"a": buffer[:3], "b": buffer[3:]}, {"a": buffer[3:], "b": buffer[:3]}
    with pytest.raises(
        ModelCompatibilityError, match="model_0: a: shares memory with 'b' of 'out', so it could change"
    ):
        merge_tensors("weighted", [model], out=out)
    assert buffer.tolist() == list(range(6))


SWAPPED = """
from modelmerger import CheckpointView, hookimpl

@hookimpl
def view_models(checkpoints):
    return [CheckpointView(checkpoint, {"a": "b", "b": "a"}) for checkpoint in checkpoints]
"""


def test_a_model_that_is_seen_otherwise_is_not_overwritten(distribution: Callable[..., Path]) -> None:
    model = {"a": torch.zeros(3), "b": torch.ones(3)}
    install(distribution, [("plugin", "swapped", SWAPPED)])
    with pytest.raises(ModelCompatibilityError, match="model_0: a: shares memory with 'a' of 'out'"):
        merge_tensors("weighted", [model], out=model)
    out = merge_tensors("weighted", [model], out={name: torch.empty(3) for name in model})
    assert (out["a"].tolist(), out["b"].tolist()) == ([1] * 3, [0] * 3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_model_is_merged_into_a_tied_module_and_into_one_that_is_not(tied: bool) -> None:
    class Model(torch.nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.shared = torch.nn.Embedding(4, 2)
            self.encoder = torch.nn.Embedding(4, 2)
            self.lm_head = torch.nn.Linear(2, 4, bias=False)
            if tied:
                self.encoder.weight = self.lm_head.weight = self.shared.weight

    models, module = [Model(tied=True), Model(tied=True)], Model(tied=tied)
    exact = (models[0].shared.weight + models[1].shared.weight) / 2

    merge_tensors("weighted", [model.state_dict() for model in models], out=module)

    for part in (module.shared, module.encoder, module.lm_head):
        torch.testing.assert_close(part.weight, exact)
    assert (module.lm_head.weight is module.shared.weight) is tied


def test_an_error_leaves_tensors_that_are_old_or_new() -> None:
    out = {"a": torch.zeros(3), "b": torch.zeros(3)}
    with pytest.raises(NumericError, match="b: 'model_0' holds 1 NaN"):
        merge_tensors("weighted", [{"a": torch.ones(3), "b": torch.tensor([1, float("nan"), 1])}], out=out)
    assert out["a"].tolist() in ([0] * 3, [1] * 3)
    assert out["b"].tolist() == [0] * 3


# into a sink of one's own


class ZipSink:
    """Writes each tensor as a member of a zip archive, when all of its bytes have come."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.records: dict[tuple[int, int], BlockRecord] = {}
        self._path, self._layout = path, layout
        self._files = [bytearray(file.size) for file in layout.files]

    def open_file(self, file: int) -> int:
        return file

    def write(self, _: int, file: int, content: memoryview, offset: int) -> None:
        self._files[file][offset : offset + len(content)] = content

    def flush(self, handle: int, file: int, offset: int, length: int) -> None: ...

    def close_file(self, handle: int, file: int) -> None: ...

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        self.records[file, block] = record

    def close(self) -> None:
        with zipfile.ZipFile(self._path, "w") as archive:
            for file, content in zip(self._layout.files, self._files, strict=True):
                for placement in file.placements:
                    part = content[placement.offset : placement.offset + placement.tensor.bytes]
                    archive.writestr(placement.tensor.name, bytes(part))


def test_a_sink_of_ones_own_gets_every_byte(tmp_path: Path) -> None:
    _, *models = three()
    made: list[ZipSink] = []

    def sink(layout: Layout) -> Sink:
        made.append(ZipSink(tmp_path / "merged.zip", layout))
        return made[0]

    assert merge_tensors("slerp", models, sink=sink, options={"max_shard_size": 1000}) == {}

    made[0].close()
    expected = merge_tensors("slerp", models)
    with zipfile.ZipFile(tmp_path / "merged.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {name: tensor.view(-1).view(torch.uint8).numpy().tobytes() for name, tensor in expected.items()}


@pytest.mark.parametrize("method", ["open_file", "write", "flush", "close_file", "record"])
@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (OutputError(Problem("cannot be written", "bucket")), OutputError, "^bucket: cannot be written$"),
        (OSError("no room"), OutputError, r"^sink: ZipSink\.fail raised OSError: no room\.$"),
    ],
    ids=["ours", "another"],
)
def test_a_sink_may_refuse_in_any_method(
    tmp_path: Path, method: str, raised: Exception, kind: type[MergeError], message: str
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    def sink(layout: Layout) -> Sink:
        made = ZipSink(tmp_path / "merged.zip", layout)
        setattr(made, method, fail)
        return made

    with pytest.raises(kind, match=message) as caught:
        merge_tensors("weighted", three(), sink=sink)
    assert (caught.value is raised) == isinstance(raised, OutputError)


def test_blocks_that_a_sink_has_are_not_made_again(tmp_path: Path) -> None:
    records: dict[tuple[int, int], BlockRecord] = {}
    opened: list[int] = []

    class Watched(ZipSink):
        def open_file(self, file: int) -> int:
            opened.append(file)
            return super().open_file(file)

    def sink(layout: Layout) -> Sink:
        made = Watched(tmp_path / "merged.zip", layout)
        made.records = records
        return made

    merge_tensors("weighted", three(), sink=sink, options={"max_shard_size": 1000})
    files = sorted(opened)
    assert files == sorted({file for file, _ in records})
    assert len(files) > 1
    opened.clear()
    del records[files[-1], 0]
    merge_tensors("weighted", three(), sink=sink, options={"max_shard_size": 1000})
    assert opened == [files[-1]]


# in other programs

KERNEL = """
import json, sys
import torch
from modelmerger import merge_tensors

models = [torch.nn.Linear(3, 2).state_dict() for _ in range(2)]
module = torch.nn.Linear(3, 2)
for strategy in ("weighted", "slerp"):
    merge_tensors(strategy, models, out=module)
print(json.dumps(sorted(sys.modules)))
"""
PEAKS = """
import os, warnings
from pathlib import Path
import torch
from modelmerger import merge_tensors

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

def merged(rows, into):
    models = [{name: torch.ones(rows, 1024) for name in "abcd"} for _ in range(2)]
    before = peak()
    found = merge_tensors("weighted", models, out=models[0] if into else None)
    return peak() - before, sum(tensor.nbytes for tensor in found.values())

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking with threads
for into in (False, True):
    if os.fork() == 0:  # a process of its own, which has imported what it needs
        merged(16, into)
        print(*merged(12 << 10, into), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], env=os.environ, capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip
    return done.stdout


def test_no_library_of_models_is_imported_and_no_strategy_but_those_named() -> None:
    modules = set(json.loads(run(KERNEL)))
    assert "torch" in modules
    assert not modules & {"transformers", "peft", "accelerate", "safetensors", "huggingface_hub", "rich"}
    built_in = {name for name in modules if name.startswith("modelmerger_strategies.")}
    assert built_in == {"modelmerger_strategies.weighted", "modelmerger_strategies.slerp"}


def test_memory_grows_by_the_merged_weights_and_no_more() -> None:
    """200 MB of weights: a second copy of them would show. Into a model, what waits are tensors that are being made."""
    for where, line in zip(("new", "into"), run(PEAKS).splitlines(), strict=True):
        grown, weights = map(int, line.split())
        assert weights == 4 * 12 * (1 << 20) * 4, where
        assert grown < (weights if where == "new" else weights // 2) + (60 << 20), where


@pytest.mark.parametrize(
    "weights",
    [
        torch.tensor([1.0, 3.0]),
        np.array([1, 3]),
        np.array([1.0, 3.0], dtype=np.float32),
        [np.float32(1), torch.tensor(3.0)],
        iter((1, 3)),
    ],
)
def test_weights_may_be_tensors_and_arrays(weights: Any) -> None:
    merged = merge_tensors("weighted", [{"w": torch.ones(2)}, {"w": torch.zeros(2)}], weights=weights)
    assert merged["w"].tolist() == [0.25, 0.25]


def test_models_may_come_from_a_generator() -> None:
    merged = merge_tensors("weighted", ({"w": torch.full((2,), value)} for value in (1.0, 3.0)))
    assert merged["w"].tolist() == [2.0, 2.0]


class NoSink:
    """Has one method of a sink."""

    def open_file(self, file: int) -> int:
        return file


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": 2.0}, "weights: must be a list of weights, one a model, got one number"),
        ({"weights": {"a": 1}}, "weights: must be a list of weights, one a model, got dict"),
        ({"models": {"w": torch.ones(2)}}, "models: must be a list of models, got dict"),
        ({"models": 3}, "models: must be a list of models, got int"),
        ({"out": "x"}, "out: must be a module, or a mapping from names to tensors, got str"),
        ({"sink": 3}, "sink: must be a function that makes a Sink of a Layout, got int"),
        (
            {"sink": lambda _: NoSink()},
            "sink: gave NoSink, which has no write, flush, close_file, records, record. It must make a Sink of a Layout",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(given: dict[str, Any], message: str) -> None:
    two: dict[str, Any] = {"models": [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]}
    with pytest.raises(ConfigError) as caught:
        merge_tensors("weighted", **{**two, **given})
    assert str(caught.value) == message


WITH_GRADIENT = ROWS.replace(
    "return sum(tensors) / sum(tensors).norm(dim=-1, keepdim=True)", "return sum(tensors).requires_grad_()"
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_strategy_may_give_a_tensor_with_a_gradient(distribution: Callable[..., Path], dtype: torch.dtype) -> None:
    install(distribution, [("strategy", "learnt", WITH_GRADIENT)])
    merged = merge_tensors("learnt", [{"w": torch.ones(2, dtype=dtype)}, {"w": torch.ones(2, dtype=dtype)}])
    assert merged["w"].tolist() == [2.0, 2.0]
    assert not merged["w"].requires_grad
