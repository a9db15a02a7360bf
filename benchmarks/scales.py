"""Measures what `scaling_factor: matched` costs beside the best λ, on the dialect models that ship with the examples.

    python benchmarks/scales.py [--strategies ties,boost] [--sets 2] [--models DIRECTORY]

For every two, three and four of the siblings, a strategy merges them with λ from a grid and with `matched` at several
shares. What is measured is the mean held-out loss of the siblings' dialects, in nats a token. The table says, for each
strategy and number of siblings: the best λ and its loss, that of `matched` as it ships, and how much is lost by it.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen
from modelmerger.testing import merge_in_memory
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "dialects"
sys.path.insert(0, str(EXAMPLE))

from build import build_models  # noqa: E402 (in the folder that was just put on the path)
from scoring import Score, mean_per_token, read_heldout, score  # noqa: E402 (in the folder that was just put on the path)
from sources import DIALECTS  # noqa: E402 (in the folder that was just put on the path)

STRATEGIES = (
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della_linear",
    "della",
    "breadcrumbs",
    "breadcrumbs_ties",
    "consensus",
    "tsv_m",
    "iso_c",
    "boost",
)
LENGTHS = (0.25, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.85)
"""Lengths of the merged update as shares of the plain sum's, over the whole model: λ = length/‖τ‖·‖Σ τᵢ‖."""
Tensors = Mapping[str, torch.Tensor]


HEADING = (
    "| strategy | siblings | best λ | its length | its loss | loss with matched | lost by matched |",
    "|---|---|---|---|---|---|---|",
)


@frozen
class Loss:
    """Of one merge."""

    scale: str
    """`matched`, or the length that λ gives the whole update, as a share of the plain sum's."""
    factor: float
    """λ; 0 for `matched`, which has many."""
    nats: float
    """The mean held-out loss of the siblings' dialects."""


class Scorer:
    """Losses of merged weights on dialects."""

    def __init__(self, models: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(models / "base")
        self._heldout = read_heldout()

    def scores(self, weights: Tensors, varieties: Iterable[str]) -> dict[str, Score]:
        """Sentence by sentence, of each variety."""
        self._model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
        self._model.tie_weights()
        return {name: score(self._model, self._tokenizer, self._heldout[name]) for name in varieties}

    def loss(self, weights: Tensors, dialects: Iterable[str]) -> float:
        """The mean over the dialects, in nats a token."""
        return mean_per_token([*self.scores(weights, dialects).values()])


def length(weights: Iterable[torch.Tensor]) -> float:
    """The norm of all tensors together."""
    return float(sum(one.double().square().sum() for one in weights)) ** 0.5


def measure(strategy: str, dialects: Sequence[str], loaded: Mapping[str, Tensors], scorer: Scorer) -> Iterable[Loss]:
    """The losses of one strategy on some siblings."""
    base, models = loaded["base"], [loaded[name] for name in dialects]
    merged = merge_in_memory(strategy, models, base, options={"scaling_factor": "matched"})
    yield Loss("matched", 0.0, scorer.loss(merged, dialects))
    at_one = merge_in_memory(strategy, models, base, options={"scaling_factor": 1.0, "torch_dtype": "float32"})
    updates = {name: value - base[name].float() for name, value in at_one.items()}
    plain = length(sum(model[name].float() - value.float() for model in models) for name, value in base.items())
    for share in LENGTHS:
        factor = share * plain / length(updates.values())  # merging is linear in λ, so one merge serves them all
        scaled = {name: base[name].float() + factor * value for name, value in updates.items()}
        yield Loss(f"{share:g}", factor, scorer.loss(scaled, dialects))


def line(strategy: str, siblings: int, losses: Sequence[Loss]) -> str:
    """A line of the table, of means over the sets of siblings."""
    by_scale: dict[str, list[Loss]] = {}
    for one in losses:
        by_scale.setdefault(one.scale, []).append(one)
    means = {scale: sum(one.nats for one in found) / len(found) for scale, found in by_scale.items()}
    matched = means.pop("matched")
    best = min(means, key=lambda scale: means[scale])
    factor = sum(one.factor for one in by_scale[best]) / len(by_scale[best])
    return (
        f"| {strategy} | {siblings} | {factor:.2f} | {best} | {means[best]:.3f} | {matched:.3f} "
        f"| {matched - means[best]:+.3f} |"
    )


def main() -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--models", type=Path, default=EXAMPLE / "models")
    parser.add_argument(
        "--sets", type=int, default=6, help="sets of two and of three siblings, the first and last ones"
    )
    told = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    told.models.mkdir(parents=True, exist_ok=True)
    build_models(told.models)
    loaded = {name: load_file(told.models / name / "model.safetensors") for name in ("base", *DIALECTS)}
    scorer = Scorer(told.models)
    print("\n".join(HEADING))
    for strategy in told.strategies.split(","):
        for count in (2, 3, 4):
            sets = list(itertools.combinations(DIALECTS, count))
            first = (told.sets + 1) // 2
            used = sets[:first] + sets[max(first, len(sets) - told.sets // 2) :]
            losses = [loss for dialects in used for loss in measure(strategy, dialects, loaded, scorer)]
            print(line(strategy, count, losses), flush=True)


if __name__ == "__main__":
    main()
