"""What a plugin does wrong in the arithmetic is put down to it, and never published."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import MergeConfig, PluginError, merge
from modelmerger.engine import measuring
from modelmerger.testing import merge_in_memory, plan_in_memory

from tests.core.plugging import install

STRATEGY = """
import numpy
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def measure_tensor(tensors, random, inputs):
    {measures}
    return torch.ones(1, dtype=torch.int64)

@hookimpl
def merge_tensor(tensors, random, inputs):
    {merges}
    return tensors[0] * 2
"""


@pytest.mark.parametrize(
    ("hook", "line", "said"),
    [
        ("merges", "tensors[0].add_(1)", "merge_tensor changed its inputs; make new tensors"),
        ("measures", "tensors[0].zero_()", "measure_tensor changed its inputs; make new tensors"),
        (
            "merges",
            "return tensors[0].numpy() * 2",
            "is due (it is a numpy.ndarray)",
        ),
        ("measures", "return numpy.ones(2)", "where float64 or int64 is due (it is a numpy.ndarray)"),
        (
            "merges",
            "return (tensors[0] * 2).to('meta')",
            "merge_tensor gave float32 of shape [4] that is sparse or has no",
        ),
        (
            "merges",
            "return (tensors[0] * 2).to_sparse()",
            "merge_tensor gave float32 of shape [4] that is sparse or has",
        ),
        (
            "merges",
            "import warnings; warnings.simplefilter('ignore'); made = [tensors[0] * 2]; "
            "return torch._nested_tensor_from_tensor_list(made)",
            "merge_tensor gave a nested tensor where a tensor, float32 of shape [4], is due",
        ),
        ("merges", "random(2)", "there are random numbers of the models 0, 1 here, and none of 2"),
        ("merges", "random(-1)", "of the models 0, 1 here, and none of -1"),
        ("merges", "random(True)", "of the models 0, 1 here, and none of True"),
        ("measures", "random('model_0')", "of the models 0, 1 here, and none of 'model_0'"),
        ("merges", "random(0, 'float16')", "random numbers are 'float32' or 'float64', not 'float16'"),
    ],
)
def test_what_a_strategy_may_not_do(distribution: Callable[..., Path], hook: str, line: str, said: str) -> None:
    source = STRATEGY.format(**{"measures": "pass", "merges": "pass"} | {hook: line})
    install(distribution, [("strategy", "misused", source)])
    models = [{"t": torch.arange(4.0).bfloat16()}, {"t": torch.ones(4).bfloat16()}]
    with pytest.raises(PluginError) as failed:
        merge_in_memory("misused", models)
    assert "strategy 'misused' from acme-merge 1.0" in str(failed.value)
    assert said in str(failed.value)


@pytest.mark.parametrize("line", ["merged.zero_()", "tensors[0].add_(1)"])
def test_who_observes_cannot_change_what_is_published(
    config: dict[str, Any], models: SimpleNamespace, distribution: Callable[..., Path], line: str
) -> None:
    source = f"from modelmerger import hookimpl\n@hookimpl\ndef observe_slice(tensors, merged):\n    {line}\n"
    install(distribution, [("plugin", "watch", source)])
    with pytest.raises(
        PluginError, match=r"plugin 'watch' from acme-merge 1\.0: observe_slice changed what it was shown"
    ):
        merge(MergeConfig(**config))
    assert not models.output.exists()


READS = """
from modelmerger import CheckpointView, hookimpl

class Broken(CheckpointView):
    content = "broken"
    def read(self, tensor, start, stop, buffer):
        raise {error}

@hookimpl
def view_models(checkpoints):
    return [Broken(checkpoint) for checkpoint in checkpoints]
"""


@pytest.mark.parametrize("error", ["ValueError('no such row')", "SystemExit('no such row')"])
def test_what_a_view_raises_as_it_is_read_is_put_down_to_it(
    config: dict[str, Any], models: SimpleNamespace, distribution: Callable[..., Path], error: str
) -> None:
    (module,) = install(distribution, [("plugin", "views", READS.format(error=error))])
    with pytest.raises(PluginError) as failed:
        merge(MergeConfig(**config))
    (problem,) = failed.value.problems
    assert problem.message.startswith(f"{module}.Broken raised {error.partition('(')[0]} as '")
    assert problem.message.endswith("was read: no such row")
    assert problem.tensor
    assert not models.output.exists()


COUNTS = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def measure_tensor(tensors):
    found = int((tensors[0] != 0).sum())
    return torch.tensor([{number}]) if found else None

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] * float(measurements[0]) if measurements else tensors[0] - 1
"""


@pytest.mark.parametrize("number", ["found", "float(found)"])
@pytest.mark.parametrize("zeros", [(0, 400), (600, 1000), (200, 300), (0, 1000), (0, 0)])
def test_none_of_a_block_adds_nothing_wherever_it_stands(
    distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, zeros: tuple[int, int], number: str
) -> None:
    source = COUNTS.format(number=number).replace("torch.tensor([float(found)])", "torch.tensor([found]).double()")
    install(distribution, [("strategy", "counts", source)])
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 50)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 3)
    tensor = torch.ones(1000)
    tensor[slice(*zeros)] = 0
    count = 1000 - (zeros[1] - zeros[0])

    plan = plan_in_memory("counts", [{"t": tensor}])

    expected = tensor * count if count else tensor - 1
    for order in (None, lambda units: list(reversed(units))):
        assert torch.equal(plan.merge(order=order)["t"], expected)
