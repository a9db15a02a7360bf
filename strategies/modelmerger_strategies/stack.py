"""Stack: the layers of several models, one on another.

    layers = those of the first model, then those of the next, …;   before them: the first model's, behind: the last's

Which layers of a model, in what order and how often, `models[i].layers` says. Kim et al. 2023, "SOLAR 10.7B",
https://arxiv.org/abs/2312.15166, section 2: depth up-scaling, after which the model is to be trained on.

For a deeper model to be trained on, or one with layers left out. Not for a model that is to be used at once.
"""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen
from modelmerger import (
    Checkpoint,
    Composition,
    ModelCompatibilityError,
    Problem,
    Settings,
    TensorSelection,
    Traits,
    hookimpl,
    is_head,
    layer_of,
    precedes_layers,
    shown,
    stacked_config,
)

traits = Traits(models=(1, None), weights=False)
Place = tuple[Checkpoint, str]


@frozen(kw_only=True)
class Options:
    """Options of stack."""

    prefix: str | None = None
    """What stands before the numbers of the layers in names of tensors ("model.layers"), for models with several
    stacks of layers."""


@hookimpl
def compose_model(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Composition:
    """The stack, whose tensors lie where they are. Raises `ModelCompatibilityError` for layers that do not fit."""
    models, donor = checkpoints[: len(settings.models)], checkpoints[settings.donor]
    prefix = _prefix(models, options)
    counts = [_count(model, prefix) for model in models]
    selected = _outside(models, prefix)
    for number, (model, layer) in enumerate(
        (model, layer) for model, count in zip(models, counts, strict=True) for layer in range(count)
    ):
        start = f"{prefix}." if prefix else ""
        for name in model.tensors:
            if layer_of(name) == (prefix, layer):
                selected[f"{start}{number}{name[len(start) + len(str(layer)) :]}"] = model, name
    beside = donor.donor
    if beside.config is not None:
        parts = [
            (model.donor.config or beside.config, range(count)) for model, count in zip(models, counts, strict=True)
        ]
        beside = evolve(beside, config=stacked_config(beside.config, parts, donor.place))
    return Composition(TensorSelection("the stack", selected, beside))


def _prefix(models: Sequence[Checkpoint], options: Options) -> str:
    """What stands before the numbers of the layers, in all models."""
    if options.prefix is not None:
        return options.prefix
    names = [name for model in models for name in model.tensors]
    found = {layer[0] for name in names if (layer := layer_of(name)) is not None}
    if len(found) > 1:  # beside a tower, or layers that guess further tokens
        found = {prefix for prefix in found if all(_layers(m, prefix) == _claimed(m) for m in models)} or found
    if len(found) != 1:
        which = ", ".join(f"'{shown(prefix, 60)}'" for prefix in sorted(found)) or "none"
        message = f"the models have more than one stack of layers ({which}). Say in options.prefix which one is meant"
        raise ModelCompatibilityError(Problem(message if found else "no model has layers", models[0].place))
    return next(iter(found))


def _claimed(model: Checkpoint) -> int | None:
    """How many layers its config says that it has."""
    config = model.donor.config or {}
    text = config.get("text_config")
    level = text if isinstance(text, Mapping) else config
    count = level.get("num_hidden_layers")
    return count if isinstance(count, int) else None


def _layers(model: Checkpoint, prefix: str) -> int:
    """How many layers it has of that prefix."""
    return len({found[1] for name in model.tensors if (found := layer_of(name)) is not None and found[0] == prefix})


def _count(model: Checkpoint, prefix: str) -> int:
    numbers = {layer[1] for name in model.tensors if (layer := layer_of(name)) is not None and layer[0] == prefix}
    if numbers != set(range(len(numbers))) or not numbers:
        message = f"has no layers of '{shown(prefix, 60)}' that are numbered from 0 without a gap"
        raise ModelCompatibilityError(Problem(message, model.place))
    return len(numbers)


def _outside(models: Sequence[Checkpoint], prefix: str) -> dict[str, Place]:
    """What is in no layer of the stack: of the first model what stands before them, of the last what comes behind."""
    first, last = models[0], models[-1]
    heads = {name for model in models for name in model.tensors if is_head(name)}
    found: dict[str, Place] = {}
    for model, wanted in ((first, True), (last, False)):
        for name in model.tensors:
            layer = layer_of(name)
            before = precedes_layers(name) or (layer is not None and layer[0] != prefix)
            if (layer is None or layer[0] != prefix) and before == wanted:
                found[name] = model, name
    return found | _lent_heads(last, heads - found.keys())


def _lent_heads(last: Checkpoint, missing: set[str]) -> dict[str, Place]:
    """A last model that ties its head to its embedding lends that where another model has a head of its own."""
    return {name: (last, last.aliases[name]) for name in missing if name in last.aliases}
