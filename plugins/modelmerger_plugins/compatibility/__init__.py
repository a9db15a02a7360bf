"""Holds models against their configs and against each other, to say in one line why they do not fit."""

from collections.abc import Iterable, Sequence

from attrs import frozen
from modelmerger import Checkpoint, Problem, Settings, hookimpl

from modelmerger_plugins.compatibility.configs import compare_configs
from modelmerger_plugins.compatibility.heads import missing_head, other_head
from modelmerger_plugins.compatibility.layer_kinds import other_kinds
from modelmerger_plugins.compatibility.weights import empty_weights, flat_weights, pruned_weights, quantised_in_silence


@frozen(kw_only=True)
class Options:
    """Options about what fits together."""

    same_depth: bool = False
    """Whether models of another depth than the donor are refused, whatever missing_tensors says; so it is with
    mergekit."""


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """Errors where models differ in what weights depend on, warnings where the meaning of weights may differ.

    Weights are held against configs, and what the weights say counts.
    """
    donor = checkpoints[settings.donor]
    unusable = [*empty_weights(checkpoints), *flat_weights(checkpoints), *pruned_weights(checkpoints)]
    if unusable:  # shapes and heads say no more
        yield from unusable
        return
    yield from quantised_in_silence(checkpoints)
    yield from missing_head(checkpoints, settings)
    for other in checkpoints:
        if other is not donor:
            yield from other_head(donor, other, settings)
            yield from compare_configs(donor, other, settings)
            yield from other_kinds(donor, other, settings)
            if options.same_depth and not settings.composes:
                from modelmerger_plugins.compatibility.depth import other_depth

                yield from other_depth(donor, other)
