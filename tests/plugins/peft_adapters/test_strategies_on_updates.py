"""Strategies of others on the updates of adapters: a linear one works with nothing to add, others say what to do."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from core.plugging import WEIGHTS_SQUARED, install
from modelmerger import ConfigError, MergeConfig, ModelMerger
from plugins.peft_adapters.tiny_adapters import make_adapter, make_base, qwen2
from plugins.peft_adapters.updates import combined, deltas, distance, merge

LARGEST = """
from modelmerger import Traits, hookimpl

traits = Traits(gram=True)

@hookimpl
def find_coefficients(weights, gram):
    if gram is not None:
        norms = [gram[i][i] for i in range(len(weights))]
        return [float(norm == max(norms)) for norm in norms]
"""
FINISHING = """
from modelmerger import Traits, hookimpl

traits = Traits({traits})

@hookimpl
def find_coefficients(weights):
    return weights

@hookimpl
def finish_tensor(merged):
    merged.clamp_(min=0)
"""
MEDIAN = """
from modelmerger import Traits, hookimpl

traits = Traits()

@hookimpl
def merge_tensor(tensors):
    return sum(tensors)
"""
COMPOSING = """
from modelmerger import Composition, Traits, hookimpl

traits = Traits()

@hookimpl
def compose_model(checkpoints):
    return Composition(checkpoints[0])
"""


@pytest.fixture
def _known_plugins() -> None:
    """Plugins are looked for in each test, since each installs some."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("made")
    base = make_base(folder / "base", qwen2)
    adapters = [make_adapter(folder / f"{seed}", base, seed, target_modules=["q_proj", "up_proj"]) for seed in (1, 2)]
    return SimpleNamespace(base=base, adapters=adapters)


def plan(made: SimpleNamespace, strategy: str) -> object:
    models = [{"path": str(path)} for path in made.adapters]
    config = MergeConfig(strategy=strategy, models=models, peft_config={"merge_adapters": True})
    return ModelMerger(config).plan()


def test_a_linear_strategy_merges_updates(
    made: SimpleNamespace, tmp_path: Path, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("strategy", "squared", WEIGHTS_SQUARED)])
    merge(tmp_path / "merged", made.adapters, [0.5, 2], strategy="squared")
    wanted = combined([deltas(made.base, path) for path in made.adapters], [0.25, 4])
    assert distance(deltas(made.base, tmp_path / "merged"), wanted) < 1e-6


def test_one_that_wants_the_gram_matrix_gets_that_of_the_updates(
    made: SimpleNamespace, tmp_path: Path, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("strategy", "largest", LARGEST)])
    merge(tmp_path / "merged", made.adapters, strategy="largest")
    ours, theirs = (deltas(made.base, path) for path in made.adapters)
    wanted = {name: max(ours[name], theirs[name], key=lambda tensor: float(tensor.norm())) for name in ours}
    assert distance(deltas(made.base, tmp_path / "merged"), wanted) < 1e-6


@pytest.mark.parametrize("source", [MEDIAN, FINISHING.format(traits=""), COMPOSING])
def test_one_that_needs_full_models_says_so(
    made: SimpleNamespace, distribution: Callable[..., Path], source: str
) -> None:
    install(distribution, [("strategy", "whole", source)])
    with pytest.raises(ConfigError, match=r"whole works on full models and cannot .*merge_adapters: false"):
        plan(made, "whole")


def test_one_that_finishes_weights_may_declare_that_it_merges_updates(
    made: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("strategy", "finishing", FINISHING.format(traits="updates=True"))])
    assert "of what they change of their base" in str(plan(made, "finishing"))
