"""The plan says what a merge will read, write and need, and names everything that decides its bytes."""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import modelmerger.planning.digest
import numpy as np
import pytest
import torch
from blocks import CountingSink
from conftest import CONFIG, random_tensors, write_model
from modelmerger import (
    ConfigError,
    Layout,
    MergeConfig,
    MergePlan,
    ModelMerger,
    OutputFile,
    OutputTensor,
    Placement,
    PluginError,
)
from modelmerger.testing import Planned, plan_in_memory

from tests.core.plugging import install
from tests.strategies import references

SHAPES = {"wte.weight": (11, 7), "matrix": (61, 37), "vector": (99,), "scalar": (), "empty": (0, 4)}
IDS = {"ids": torch.arange(50)}
MEDIAN = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity="whole")

@hookimpl
def measure_tensor(tensors):
    return tensors[0].double().sum()

@hookimpl
def merge_tensor(tensors, measurements):
    return torch.stack(list(tensors)).median(dim=0).values
"""


def models(
    count: int, dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
) -> list[dict[str, torch.Tensor]]:
    return [random_tensors(seed, dtypes[seed % len(dtypes)], SHAPES) | IDS for seed in range(count)]


def read_of(merge: Planned) -> int:
    """Bytes that a merge, the comparison of copied tensors included, reads."""
    sink = CountingSink(merge.plan.layout)
    merge.stage(staged=sink)
    assert sink.bytes_written == merge.plan.bytes_written
    return sum(checkpoint.bytes_read for checkpoint in merge.checkpoints)


@pytest.mark.parametrize(
    ("strategy", "count", "weights", "options"),
    [
        ("weighted", 1, None, {}),
        ("weighted", 3, [1, 0, 2], {}),
        ("weighted", 2, None, {"torch_dtype": "float32", "max_shard_size": 2000}),
        ("sequential", 3, [1, 0.5, 0.5], {}),
        ("slerp", 2, None, {}),
        ("slerp", 2, None, {"interpolation_factor": 0}),
        ("task_arithmetic", 2, [0.5, 0.25], {}),
        ("task_arithmetic", 2, [0.5, 0.5], {}),
        ("acme_median", 3, None, {}),
        ("weighted", 2, [1, {"*": 0.5}], {"merge_embeddings": False}),
        ("task_arithmetic", 2, [[0.5, 0.25], 1], {"merge_embeddings": False, "missing_tensors": "union"}),
        ("acme_median", 3, None, {"merge_embeddings": False, "missing_tensors": "donor"}),
    ],
)
def test_bytes_read_and_written_are_those_of_the_merge(
    strategy: str,
    count: int,
    weights: list[float] | None,
    options: dict[str, Any],
    distribution: Callable[..., Path],
) -> None:
    distribution("acme", "1.0", "[modelmerger.strategies]\nacme_median = acme_median\n", acme_median=MEDIAN)
    base = models(count + 1)[-1] if strategy == "task_arithmetic" else None
    given = models(count)
    if "missing_tensors" in options:
        given[1] |= {"of one alone": torch.ones(9)}
        del given[1]["vector"]

    merge = plan_in_memory(strategy, given, base, weights, options=options)

    assert read_of(merge) == merge.plan.bytes_read
    assert merge.plan.bytes_written == sum(file.size for file in merge.plan.layout.files)


def test_an_input_without_a_share_is_left_out_of_the_plan() -> None:
    merge = plan_in_memory("task_arithmetic", models(2), models(3)[2], [0.5, 0.5])

    by_name = {tensor.name: tensor for tensor in merge.plan.tensors}
    assert by_name["matrix"].inputs == (0, 1)
    assert by_name["matrix"].coefficients == (0.5, 0.5)
    assert by_name["ids"].action == by_name["empty"].action == "copy"
    assert by_name["ids"].inputs == (2, 0, 1)
    assert by_name["empty"].inputs == (2,)


@pytest.mark.parametrize(
    ("stored", "written", "compute"),
    [
        ((torch.bfloat16, torch.bfloat16), "auto", "F32"),
        ((torch.bfloat16, torch.float32), "auto", "F32"),
        ((torch.bfloat16, torch.float64), "auto", "F64"),
        ((torch.float16, torch.float16), "float32", "F64"),
        ((torch.float32, torch.float32), "auto", "F64"),
        ((torch.float8_e4m3fn, torch.float8_e4m3fn), "bfloat16", "F32"),
    ],
    ids=str,
)
def test_arithmetic_is_wider_than_what_is_written(stored: tuple[torch.dtype, ...], written: str, compute: str) -> None:
    merge = plan_in_memory("weighted", models(2, stored), options={"torch_dtype": written})

    assert {tensor.compute for tensor in merge.plan.tensors if tensor.action == "combine"} == {compute}


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 3), (torch.bfloat16, 31)], ids=str)
def test_long_sums_are_made_in_float64(dtype: torch.dtype, most: int) -> None:
    for count, compute in ((most, "F32"), (most + 1, "F64")):
        assert (
            plan_in_memory("weighted", [{"t": torch.ones(2, dtype=dtype)}] * count).plan.tensors[0].compute == compute
        )


def test_effort_follows_the_options(distribution: Callable[..., Path]) -> None:
    elementwise = MEDIAN.replace(', granularity="whole"', "")
    install(distribution, [("strategy", "median", elementwise)])
    usual = plan_in_memory("weighted", models(2)).plan
    low = plan_in_memory("weighted", models(2), options={"low_memory_mode": True}).plan
    sequential = plan_in_memory("weighted", models(2), options={"sequential_loading": True}).plan
    many = plan_in_memory("weighted", models(12)).plan
    together = plan_in_memory("median", models(12)).plan

    assert usual.workers == len(os.sched_getaffinity(0))
    assert low.workers == sequential.workers == 1
    assert low.slice_elements < usual.slice_elements == sequential.slice_elements == many.slice_elements
    assert low.slice_elements < together.slice_elements < usual.slice_elements
    assert low.memory < usual.memory


def on_disk(folder: Path) -> dict[str, Any]:
    paths = [write_model(folder / name, random_tensors(seed)) for seed, name in enumerate(("a", "b", "base"))]
    return {
        "strategy": "task_arithmetic",
        "models": [{"path": str(paths[0]), "weight": 0.5}, {"path": str(paths[1])}],
        "base_model": str(paths[2]),
        "options": {"scaling_factor": 0.5},
    }


def plan_of(config: Mapping[str, Any]) -> MergePlan:
    return ModelMerger(MergeConfig(**config)).plan()


DECISIVE: dict[str, Callable[[dict[str, Any], Path], object]] = {
    "a weight": lambda c, _: c["models"][0].update(weight=0.6),
    "a weight by layer": lambda c, _: c["models"][0].update(weight=[0.5, 0.6]),
    "a weight by pattern": lambda c, _: c["models"][0].update(weight={"*.mlp.*": 0.6, "default": 0.5}),
    "whether embeddings are merged": lambda c, _: c["options"].update(merge_embeddings=False),
    "whether the head is merged": lambda c, _: c["options"].update(merge_embeddings=False, merge_lm_head=False),
    "what becomes of missing tensors": lambda c, _: c["options"].update(missing_tensors="union"),
    "an operation": lambda c, _: c["models"][0].update(operation="subtract"),
    "a name": lambda c, _: c["models"][0].update(name="other"),
    "the order of models": lambda c, _: c["models"].reverse(),
    "the base": lambda c, _: c.update(base_model=c["models"][0]["path"]),
    "an option of the strategy": lambda c, _: c["options"].update(scaling_factor=0.6),
    "a boolean of the strategy": lambda c, _: c["options"].update(clamp_weights=True),
    "the dtype": lambda c, _: c["options"].update(torch_dtype="float32"),
    "the seed": lambda c, _: c["options"].update(seed=1),
    "the shards": lambda c, _: c["options"].update(max_shard_size=1000),
    "whether NaN may pass": lambda c, _: c["options"].update(allow_nonfinite=True),
    "an option of a plugin": lambda c, _: c["options"].update(preserve_tokenizer=False),
    "another strategy": lambda c, _: c.update(strategy="weighted", options={}),
    "the content of an input": lambda _, f: write_model(f / "b", random_tensors(7)),
    "an input's time": lambda _, f: os.utime(f / "b/model.safetensors", ns=(1, 1)),
    "the donor's config": lambda _, f: (f / "base/config.json").write_text(json.dumps(CONFIG | {"eos_token_id": 2})),
}


@pytest.mark.parametrize("what", DECISIVE)
def test_the_digest_changes_with_whatever_decides_the_output(what: str, tmp_path: Path) -> None:
    config = on_disk(tmp_path)
    before = plan_of(config).digest

    DECISIVE[what](config, tmp_path)

    assert plan_of(config).digest != before


@pytest.mark.parametrize(
    "options",
    [{"low_memory_mode": True}, {"sequential_loading": True}, {"verbose": True}, {"overwrite": True}],
    ids=str,
)
def test_the_digest_stays_where_only_speed_or_place_changes(options: dict[str, Any], tmp_path: Path) -> None:
    config = on_disk(tmp_path)
    before = plan_of(config).digest

    config["options"].update(options)
    config["output_path"] = str(tmp_path / "elsewhere")

    assert plan_of(config).digest == before


def test_the_digest_changes_with_a_plugin_and_its_version(tmp_path: Path, distribution: Callable[..., Path]) -> None:
    config = on_disk(tmp_path)
    digests = [plan_of(config).digest]
    source = "from modelmerger import hookimpl\n\n@hookimpl\ndef check_compatibility():\n    return []\n"

    site = distribution("acme-check", "1.0", "[modelmerger.plugins]\nacme = acme_check\n", acme_check=source)
    digests.append(plan_of(config).digest)
    metadata = site / "acme_check-1.0.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    (site / "acme_check-1.0.dist-info").rename(site / "acme_check-1.1.dist-info")
    digests.append(plan_of(config).digest)

    assert len(set(digests)) == 3


def test_the_digest_changes_with_the_source_of_the_strategy(distribution: Callable[..., Path]) -> None:
    site = distribution("acme", "1.0", "[modelmerger.strategies]\nacme_same = acme_same\n", acme_same=MEDIAN)
    before = plan_in_memory("acme_same", models(2)).plan.digest

    (site / "acme_same.py").write_text(MEDIAN.replace("median", "nanmedian"))

    assert plan_in_memory("acme_same", models(2)).plan.digest != before


def test_the_digest_changes_with_the_version_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = on_disk(tmp_path)
    before = plan_of(config).digest

    monkeypatch.setattr(modelmerger.planning.digest, "version_of", {"torch": "0.4"}.__getitem__)

    assert plan_of(config).digest != before


def test_a_plan_is_printed_for_people(tmp_path: Path) -> None:
    config = on_disk(tmp_path)
    config["models"][1]["operation"] = "subtract"

    plan = plan_of(config)

    lines = str(plan).splitlines()
    assert lines[:4] == [
        "task_arithmetic of 2 models",
        f"  a: weight 0.5 ({tmp_path / 'a'})",
        f"  b: weight 1, operation subtract ({tmp_path / 'b'})",
        f"  base: base, gives config and tokenizer ({tmp_path / 'base'})",
    ]
    assert [line.split()[0] for line in lines[4:]] == ["tensors", "output", "beside", "reads", "memory", "disk"]
    assert "7 merged tensors, 0 copied tensors" in lines[4]
    assert "1 file (safetensors)" in lines[5]


def test_a_plan_is_plain_data_for_machines(models: SimpleNamespace, config: dict[str, Any]) -> None:
    plan = plan_of(config)

    data = json.loads(json.dumps(plan.as_dict()))

    assert data["digest"] == plan.digest
    assert [model["weight"] for model in data["models"]] == [0.6, 0.4]
    assert data["donor"] == "a"
    assert data["disk"] == plan.disk > data["bytes_written"] == plan.bytes_written
    by_name = {tensor["name"]: tensor for tensor in data["files"][0]["tensors"]}
    assert by_name.keys() == models.tensors["a"].keys()
    assert by_name["model.layers.1.conv.weight"]["shape"] == [4, 3, 2, 5]
    assert all(tensor["coefficients"] == pytest.approx([0.6, 0.4]) for tensor in data["tensors"])
    slerp = plan_of({"strategy": "slerp", "models": config["models"]})
    assert json.loads(json.dumps(slerp.as_dict()))["tensors"][0]["coefficients"] is None


def test_planning_reads_no_tensor() -> None:
    merge = plan_in_memory("slerp", models(2))

    assert all(checkpoint.reads == [] for checkpoint in merge.checkpoints)


A, B = OutputTensor("a", "F32", (4,), 16), OutputTensor("b", "F16", (3,), 6)
BAD_LAYOUTS = {
    "a hole": [OutputFile("f", 24, (), (Placement(A, 0), Placement(B, 18)))],
    "a tensor beyond the end": [OutputFile("f", 22, (), (Placement(A, 0), Placement(B, 18)))],
    "an overlap": [OutputFile("f", 20, (), (Placement(A, 0), Placement(B, 14)))],
    "a hole before the first": [OutputFile("f", 26, (), (Placement(A, 4), Placement(B, 20)))],
    "a file too long": [OutputFile("f", 23, (), (Placement(A, 0), Placement(B, 16)))],
    "a file too short": [OutputFile("f", 21, (), (Placement(A, 0), Placement(B, 16)))],
    "fixed bytes over a tensor": [OutputFile("f", 22, ((0, b"xy"),), (Placement(A, 0), Placement(B, 16)))],
    "a misaligned tensor": [OutputFile("f", 24, ((0, b"xy"),), (Placement(A, 2), Placement(B, 18)))],
    "a tensor left out": [OutputFile("f", 16, (), (Placement(A, 0),))],
    "a tensor twice": [
        OutputFile("f", 22, (), (Placement(A, 0), Placement(B, 16))),
        OutputFile("g", 16, (), (Placement(A, 0),)),
    ],
    "a tensor of another dtype": [
        OutputFile("f", 14, (), (Placement(OutputTensor("a", "F16", (4,), 8), 0), Placement(B, 8))),
    ],
    "a tensor of another name": [
        OutputFile("f", 22, (), (Placement(attrs.evolve(A, name="c"), 0), Placement(B, 16))),
    ],
    "a file in a folder": [OutputFile("sub/f", 22, (), (Placement(A, 0), Placement(B, 16)))],
    "a file outside": [OutputFile("../f", 22, (), (Placement(A, 0), Placement(B, 16)))],
    "two files of one name": [
        OutputFile("f", 16, (), (Placement(A, 0),)),
        OutputFile("f", 6, (), (Placement(B, 0),)),
    ],
}
TENSORS = {"a": torch.ones(4), "b": torch.ones(3).half()}


RAW = """
from modelmerger import hookimpl

@hookimpl
def save_model():
    return layout
"""


@pytest.fixture
def plan_with(distribution: Callable[..., Path]) -> Callable[[Layout], MergePlan]:
    """`plan_with(layout)`: the plan of a merge whose output a plugin lays out like that."""
    (name,) = install(distribution, [("plugin", "raw", RAW)])
    module: Any = importlib.import_module(name)

    def plan(layout: Layout) -> MergePlan:
        module.layout = layout
        return plan_in_memory("weighted", [TENSORS]).plan

    return plan


@pytest.mark.parametrize("what", BAD_LAYOUTS)
def test_a_layout_that_does_not_tile_its_files_is_refused(what: str, plan_with: Callable[[Layout], MergePlan]) -> None:
    with pytest.raises(PluginError, match="the layout of format 'raw'") as caught:
        plan_with(Layout("raw", BAD_LAYOUTS[what]))
    assert caught.value.exit_status == 7


def test_a_document_of_a_layout_must_not_have_the_name_of_a_file(plan_with: Callable[[Layout], MergePlan]) -> None:
    files = [OutputFile("f", 22, (), (Placement(A, 0), Placement(B, 16)))]

    assert plan_with(Layout("raw", files, {"index": b""})).bytes_written == 22
    with pytest.raises(PluginError, match="is not unique"):
        plan_with(Layout("raw", files, {"f": b""}))


LAYERED = {"embed_tokens.weight": (6, 4), **{f"layers.{i}.w": (5, 4) for i in range(3)}, "norm.weight": (4,)}
LAYERS = {"embed_tokens.weight": 0, "layers.0.w": 0, "layers.1.w": 1, "layers.2.w": 2, "norm.weight": 2}
BY_PATTERN = {"*.1.*": 0.75, "default": [0.25, 0.5, 1]}
SECOND = {"embed_tokens.weight": 0.25, "layers.0.w": 0.25, "layers.1.w": 0.75, "layers.2.w": 1.0, "norm.weight": 1.0}
"""What `BY_PATTERN` says of each tensor."""


def layered(count: int, dtype: torch.dtype = torch.float32) -> list[dict[str, torch.Tensor]]:
    return [random_tensors(seed, dtype, LAYERED) for seed in range(count)]


def formula(strategy: str, tensors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    if strategy == "weighted":
        return references.weighted(tensors[:2], weights)
    if strategy == "sequential":
        return references.sequential(tensors[:2], weights)
    if strategy == "slerp":
        return references.slerp(tensors[0], tensors[1], weights[1] / sum(weights))
    return references.task_arithmetic(tensors[:2], tensors[2], weights, [False, True])


@pytest.mark.parametrize("strategy", ["weighted", "sequential", "slerp", "task_arithmetic"])
def test_every_strategy_merges_each_tensor_by_its_own_weights(strategy: str) -> None:
    tensors = layered(3)
    first: Any = 1 if strategy == "sequential" else [2, 1]
    base = tensors[2] if strategy == "task_arithmetic" else None
    operations = [{}, {"operation": "subtract"}] if base else None

    merged = plan_in_memory(strategy, tensors[:2], base, [first, BY_PATTERN], operations).merge()

    for name, depth in LAYERS.items():
        weights = [1.0 if strategy == "sequential" else 2 - depth / 2, SECOND[name]]
        exact = formula(strategy, [t[name].double().numpy() for t in tensors], weights)
        np.testing.assert_allclose(merged[name].double().numpy(), exact, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_list_of_one_is_that_number() -> None:
    tensors = layered(2)

    one, number = (plan_in_memory("weighted", tensors, weights=[w, 0.25]).merge() for w in ([0.5], 0.5))

    assert all(torch.equal(one[name], number[name]) for name in LAYERED)


def test_a_layer_of_weight_zero_is_not_read() -> None:
    merge = plan_in_memory("weighted", layered(2), weights=[1, [0, 1]])

    assert {t.name: t.inputs for t in merge.plan.tensors if t.inputs == (0,)}.keys() == {
        "embed_tokens.weight",
        "layers.0.w",
    }
    assert read_of(merge) == merge.plan.bytes_read


def test_a_strategy_of_others_gets_the_tensors_own_weights(distribution: Callable[..., Path]) -> None:
    entries = "[modelmerger.strategies]\nown_sum = acme_own_sum\nown_first = acme_own_first\n"
    head = "from modelmerger import Traits, hookimpl\ntraits = Traits(models=(2, None))\n\n@hookimpl\n"
    merging = (
        "def merge_tensor(tensors, weights):\n    return sum(t * w for t, w in zip(tensors, weights, strict=True))\n"
    )
    linear = "def find_coefficients(weights):\n    return [weights[1], weights[0]]\n"
    distribution("acme", "1.0", entries, acme_own_sum=head + merging, acme_own_first=head + linear)
    tensors = layered(2)

    weights = [[0, 1], BY_PATTERN]
    summed = plan_in_memory("own_sum", tensors, weights=weights).merge()
    crossed = plan_in_memory("own_first", tensors, weights=weights).merge()

    for name, depth in LAYERS.items():
        a, b = (t[name].double() for t in tensors)
        torch.testing.assert_close(summed[name].double(), a * depth / 2 + b * SECOND[name], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(crossed[name].double(), a * SECOND[name] + b * depth / 2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("strategy", "weights", "said"),
    [
        ("weighted", [[1, 0], [-1, 1]], "models: embed_tokens.weight: the weights [1.0, -1.0] add up to 0"),
        ("sequential", [[1, 0.5], 1], "models: layers.1.w: sequential starts with the first model"),
        ("slerp", [1, {"layers.2.*": -3, "default": 1}], "models: layers.2.w: the weights 1 and -3 give no point"),
        ("weighted", [1, {"layers.*": 1}], "models[1].weight: embed_tokens.weight: no pattern matches it, nor 1 other"),
        ("weighted", [{"*.mpl.*": 1, "default": 1}, 1], "models[0].weight: the pattern '*.mpl.*' matches no tensor"),
    ],
)
def test_weights_that_do_not_fit_a_tensor_name_it(strategy: str, weights: list[Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_in_memory(strategy, layered(2), weights=weights)
    (line,) = caught.value.lines()
    assert line.startswith(said)


def test_a_tensor_of_which_nothing_would_be_left_is_named(distribution: Callable[..., Path]) -> None:
    distribution("acme", "1.0", "[modelmerger.strategies]\nacme_median = acme_median\n", acme_median=MEDIAN)
    weights = [[1, 0], [1, 0]]

    for strategy, options in (("weighted", {"normalize_weights": False}), ("acme_median", {})):
        with pytest.raises(ConfigError, match=r"^models: layers.2.w: every coefficient of this merge is zero"):
            plan_in_memory(strategy, layered(2), weights=weights, options=options)


def test_all_patterns_that_do_not_fit_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_in_memory("weighted", layered(2), weights=[{"x*": 1, "y*": 1}, {"z*": 1, "default": 1}])
    assert [problem.where for problem in caught.value.problems] == [*["models[0].weight"] * 3, "models[1].weight"]


def test_a_weight_is_shown_as_it_was_written(tmp_path: Path) -> None:
    config = on_disk(tmp_path)
    config["models"][0]["weight"] = [0, 0.5]
    config["models"][1]["weight"] = {"*.mlp.*": 0.3, "default": [1, 0.5]}

    plan = plan_of(config)

    data = json.loads(json.dumps(plan.as_dict()))
    assert [model["weight"] for model in data["models"]] == [[0, 0.5], {"*.mlp.*": 0.3, "default": [1, 0.5]}, None]
    by_name = {tensor["name"]: tensor["weights"] for tensor in data["tensors"]}
    assert by_name["model.layers.0.mlp.weight"] == [0, 0.3]
    assert by_name["model.norm.weight"] == [0.5, 0.5]
    assert str(plan).splitlines()[1:3] == [
        f"  a: weight [0, 0.5] ({tmp_path / 'a'})",
        f"  b: weight {{'*.mlp.*': 0.3, 'default': [1, 0.5]}} ({tmp_path / 'b'})",
    ]


def test_a_plan_says_which_options_vary_by_tensor_and_how_far(
    tmp_path: Path, distribution: Callable[..., Path]
) -> None:
    source = """
from attrs import frozen
from modelmerger import Traits, hookimpl, varying

traits = Traits(models=(1, None))

@frozen
class Options:
    power: float = varying(default=2.0)

@frozen
class ModelOptions:
    density: float = varying(default=1.0)

@hookimpl
def find_coefficients(weights):
    return weights
"""
    install(distribution, [("strategy", "varied", source)])
    config = on_disk(tmp_path) | {"strategy": "varied", "options": {}}
    config["models"][1]["density"] = {"*.mlp.*": [0.125, 0.5], "default": 0.25}

    (varies,) = [line for line in str(plan_of(config)).splitlines() if line.startswith("varies")]
    assert varies == "varies   density of b 0.125 to 0.5 by tensor"

    config["options"] = {"power": [1, 3]}
    (varies,) = [line for line in str(plan_of(config)).splitlines() if line.startswith("varies")]
    assert varies == "varies   power 1 to 3, density of b 0.125 to 0.5 by tensor"


def test_the_order_of_patterns_decides_and_is_in_the_digest(tmp_path: Path) -> None:
    config = on_disk(tmp_path)
    digests = []
    for weight in ({"*.mlp.*": 0.3, "*layers*": 0.4, "*": 1}, {"*layers*": 0.4, "*.mlp.*": 0.3, "*": 1}):
        config["models"][0]["weight"] = weight
        digests.append(plan_of(config).digest)

    assert len(set(digests)) == 2
