"""Measures what each strategy keeps and loses, on the dialect models that ship with the examples.

    python benchmarks/choosing.py [--models DIRECTORY]   writes results/choosing.json, the page's tables and the picture
    python benchmarks/choosing.py --draw                 the tables and the picture alone, from the figures of before

Every strategy that can merges all four siblings; one that takes two, or one and a base, merges the first two. Each is
measured with its defaults and, where it has a `scaling_factor`, with the best λ of a grid. That λ is chosen on every
other sentence and scored on the rest, and the other way round, so that no sentence chooses what it scores.

Figures are gains over the base in nats a token, with 95 % intervals: a paired bootstrap over sentences, which are drawn
for both models alike. Seeds are fixed and one thread computes; another processor may change the last digit.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import fields_dict, frozen
from choice import RESULT, Figures, Interval, Row, as_json, write_page
from modelmerger import Traits
from modelmerger.testing import merge_in_memory
from planned import built_in
from safetensors.torch import load_file
from scales import DIALECTS, EXAMPLE, Score, Scorer, Tensors, build_models, mean_per_token
from scoring import gain_interval
from sources import VARIETIES
from transformers.utils import logging

LAMBDAS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
NO_MERGE = ("passthrough", "stack")
"""Strategies that take tensors as they are."""
COMPARED = ("weighted", "task_arithmetic")
"""Those that merge four siblings and stand beside the strategies of two as well."""
REFERENCE = "task_arithmetic"
"""The strategy that all others are compared with, at its best λ."""

Scores = Mapping[str, Score]
"""By variety."""


@frozen
class Measured:
    """One strategy, as it was scored."""

    strategy: str
    scale: str
    """λ in words; empty where the strategy has none."""
    best: bool
    """Whether that is the best λ, and not the default."""
    scores: Scores


@frozen
class Siblings:
    """What is merged, and what scores it."""

    dialects: tuple[str, ...]
    loaded: Mapping[str, Tensors]
    """The base and the siblings, by name."""
    scorer: Scorer

    def merged(self, strategy: str, traits: Traits, options: Mapping[str, Any]) -> Scores:
        """The scores of one merge. A strategy of one model and a base changes the first sibling by the second."""
        models = [self.loaded[name] for name in self.dialects]
        base = models.pop(0) if traits.models == (1, 1) else self.loaded["base"]
        return self.scorer.scores(merge_in_memory(strategy, models, base, options=options), VARIETIES)


def measure(strategy: str, traits: Traits, options: type | None, siblings: Siblings) -> Iterator[Measured]:
    """One strategy with its defaults, with its best λ, and the one that others are compared with as `matched` too."""
    field = fields_dict(options).get("scaling_factor") if options is not None else None
    default = "" if field is None else "1/n" if field.default is None else f"{field.default}"
    yield Measured(strategy, default, False, siblings.merged(strategy, traits, {}))
    if strategy == REFERENCE:  # the others are matched by default
        yield Measured(strategy, "matched", False, siblings.merged(strategy, traits, {"scaling_factor": "matched"}))
    if field is not None:
        scored = {factor: siblings.merged(strategy, traits, {"scaling_factor": factor}) for factor in LAMBDAS}
        for_even, for_odd = (best_factor(scored, siblings.dialects, chosen_on) for chosen_on in (1, 0))
        said = " and ".join(f"{factor:g}" for factor in sorted({for_even, for_odd}))
        yield Measured(strategy, said, True, alternating(scored[for_even], scored[for_odd]))


def best_factor(scored: Mapping[float, Scores], dialects: Sequence[str], first: int) -> float:
    """The λ with the least loss on every other sentence from this one on."""

    def loss(factor: float) -> float:
        found = [scored[factor][name] for name in dialects]
        return mean_per_token([Score(one.nats[first::2], one.tokens[first::2]) for one in found])

    return min(scored, key=loss)


def alternating(even: Scores, odd: Scores) -> Scores:
    """The even sentences of one and the odd ones of the other."""
    found: dict[str, Score] = {}
    for name, one in even.items():
        nats = one.nats.clone()
        nats[1::2] = odd[name].nats[1::2]
        found[name] = Score(nats, one.tokens)
    return found


def gain(scores: Scores, beside: Scores, varieties: Sequence[str]) -> Interval:
    """How much less loss than that beside it, as a mean over the varieties, and the 95 % interval of that."""
    better, worse = ([one[name] for name in varieties] for one in (scores, beside))
    return Interval(mean_per_token(worse) - mean_per_token(better), *gain_interval(better, worse))


def figures(dialects: tuple[str, ...], found: Sequence[Measured], base: Scores, own: Scores) -> Figures:
    """What is written of these merges. own: of each dialect, the scores of the sibling that was tuned on it."""
    reference = next(one.scores for one in found if one.strategy == REFERENCE and one.best)
    rows = [
        Row(
            strategy=one.strategy,
            scale=one.scale,
            best=one.best,
            losses={name: one.scores[name].per_token for name in (*dialects, "msa")},
            gains={name: gain(one.scores, base, [name]) for name in (*dialects, "msa")},
            mean=gain(one.scores, base, dialects),
            beside=gain(one.scores, reference, dialects),
        )
        for one in found
    ]
    losses = {name: base[name].per_token for name in (*dialects, "msa")}
    return Figures(
        dialects, losses, {name: gain(own, base, [name]) for name in dialects}, gain(own, base, dialects), rows
    )


def main() -> None:
    """Measures, and writes what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=EXAMPLE / "models", help="where the models are, or are built")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    told = parser.parse_args()
    if not told.draw:
        torch.set_num_threads(1)
        logging.disable_progress_bar()
        build_models(told.models)
        loaded = {name: load_file(told.models / name / "model.safetensors") for name in ("base", *DIALECTS)}
        RESULT.write_text(json.dumps(as_json(measured(loaded, Scorer(told.models))), indent=1) + "\n")
    write_page()


def measured(loaded: Mapping[str, Tensors], scorer: Scorer) -> list[Figures]:
    """The figures of all four siblings, and of the first two."""
    base = scorer.scores(loaded["base"], VARIETIES)
    own = {name: scorer.scores(loaded[name], [name])[name] for name in DIALECTS}
    sets: list[Figures] = []
    for dialects in (DIALECTS, DIALECTS[:2]):
        siblings = Siblings(dialects, loaded, scorer)
        found: list[Measured] = []
        for name, traits, options in built_in():
            takes_all = traits.models[1] is None
            if name not in NO_MERGE and (takes_all if dialects == DIALECTS else not takes_all or name in COMPARED):
                print(len(dialects), name, flush=True)
                found += measure(name, traits, options, siblings)
        sets.append(figures(dialects, found, base, own))
    return sets


if __name__ == "__main__":
    main()
