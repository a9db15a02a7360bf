"""Opens PEFT adapters: a directory with adapter_config.json is its base model with the adapter folded in, computed as it is read.

Adapter files are read here, without PEFT; nothing that they name is imported, downloaded or run.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators
from modelmerger import (
    Checkpoint,
    Coefficients,
    ConfigError,
    Donor,
    InputError,
    LoadContext,
    MergedUpdates,
    ModelCompatibilityError,
    ModelReference,
    Problem,
    Settings,
    different_bases,
    hookimpl,
)
from modelmerger.inputs.loading import names_in
from modelmerger.values.option_checks import Check, between, in_yaml
from modelmerger.values.text import shown

from modelmerger_plugins.peft_adapters import bases, config
from modelmerger_plugins.peft_adapters.folding import Adapter, Folded
from modelmerger_plugins.peft_adapters.keys import read_keys
from modelmerger_plugins.peft_adapters.replication import layers_of
from modelmerger_plugins.peft_adapters.section import DEFAULT, SECTION, of_adapters

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WIDE = ("float32", "float64")
ADVICE = "Set peft_config.merge_adapters: false, which folds each adapter into its base"
METHODS = ("linear", "cat", "svd", "peft_linear")
_method = Check(
    {"enum": [*METHODS, None]},
    lambda value: None if value in METHODS else f"must be one of {', '.join(METHODS)}, got {in_yaml(value)}",
)


@frozen(kw_only=True)
class Options:
    """Options about merged adapters."""

    preserve_base_model: bool | None = None
    """For adapters with merge_adapters: true: the merged adapter is written; false: a full model."""
    merge_method: str | None = field(default=None, validator=validators.optional(_method))
    """For adapters with merge_adapters: true: how their factors are put together."""
    rank: int | None = field(default=None, validator=validators.optional(between(1, 2**20)))
    """For merge_method svd: the rank of the merged adapter; else the largest rank among the adapters."""


sections = (SECTION,)


@hookimpl
def check_config(settings: Settings) -> Iterable[Problem]:
    """A base that is given in two places is one base."""
    base, ours = settings.base_model, of_adapters(settings).base_model_path
    if (
        base is not None
        and "base_model" not in settings.live
        and ours is not None
        and not bases.is_one_path(base, ours)
    ):
        message = f"is {ours!r}, and base_model is {base!r}. Give the same path, or one of them"
        yield Problem(message, "peft_config.base_model_path")


@hookimpl
def load_model(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """The base with the adapters of this directory folded in; None where the directory is no adapter."""
    path = reference.local
    names = of_adapters(context).adapter_names
    directories = [path if name == DEFAULT else path / name for name in names]
    present = [os.path.lexists(directory / config.FILE) for directory in directories]
    if not any(present) and not os.path.lexists(path / config.FILE):
        return None
    if not all(present):
        raise InputError(_absent(path, names[present.index(False)]))
    configs = [config.read_config(directory) for directory in directories]
    base = bases.find_base(configs[0], context)
    settings = context.settings
    adapters, files, problems = [], [], []
    for directory, of_adapter in zip(directories, configs, strict=True):
        stored = context.open_model(ModelReference(str(_weights(directory)), reference.name, reference.where))
        reading = read_keys(of_adapter, stored, base.checkpoint)
        problems += reading.problems
        allow_nonfinite = bool(settings and settings.options.allow_nonfinite)
        adapters.append(Adapter(stored, reading.changes, allow_nonfinite, of_adapter))
        files += [context.open_file(directory / config.FILE), *stored.files]
    if problems:
        raise InputError(*problems)
    return Folded(
        name=reference.name,
        base=base,
        adapters=adapters,
        files=(*files, *base.checkpoint.files),
        donor=Donor(path.absolute(), base.checkpoint.donor.config),
        wide=bool(settings and settings.options.torch_dtype in WIDE),
        notes=[note for of_adapter in configs for note in _other_base(of_adapter, base.reference)],
    )


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """What the options ask of adapters that cannot be, and what is to be said of each adapter."""
    folded = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, Folded)]
    merge_adapters = of_adapters(settings).merge_adapters
    if settings.sections.get(SECTION.name) is not None and all(checkpoint.base is None for checkpoint in checkpoints):
        message = "none of the models is an adapter, so peft_config has no effect."
        yield Problem(message, "peft_config", severity="note")
    for name in ("preserve_base_model", "merge_method", "rank"):
        if getattr(options, name) is not None and not folded:
            yield Problem(
                "is of use to adapters alone, and none of the models is one. Leave it out.", f"options.{name}"
            )
    for name in ("merge_method", "rank"):
        if getattr(options, name) is not None and folded and not merge_adapters:
            message = "says how adapters are merged into an adapter, and merge_adapters: false folds each into its base. Leave it out."
            yield Problem(message, f"options.{name}")
    if options.preserve_base_model and folded and not merge_adapters:
        message = (
            "contradicts merge_adapters: false, which folds each adapter into its base, so that a full model comes out. "
            "Set peft_config.merge_adapters: true, or leave this out."
        )
        yield Problem(message, "options.preserve_base_model")
    if options.rank is not None and merge_adapters and options.merge_method != "svd":
        message = (
            f"belongs to merge_method: svd, and it is {options.merge_method or 'linear'}, which is exact. Leave it out."
        )
        if options.merge_method == "peft_linear":
            message = "belongs to merge_method: svd, and peft_linear keeps the rank of the adapters. Leave it out."
        yield Problem(message, "options.rank")
    yield from _of_other_layers(folded, checkpoints, settings)
    to_adapter = merge_adapters and options.preserve_base_model is not False
    for checkpoint in folded:
        yield from checkpoint.notes
        tied = set() if to_adapter else set(checkpoint.aliases.values())
        for adapter in checkpoint.adapters:
            for tensor in sorted(tied & adapter.changes.keys()):
                message = (
                    "is tied to the LM head, so the adapter's change of the embedding changes the LM head as well."
                )
                yield Problem(message, checkpoint.place, tensor, severity="warning")


@hookimpl
def wants_updates(checkpoints: Sequence[Checkpoint], settings: Settings, able: bool) -> bool | None:
    """Where `merge_adapters` asks for it. Raises what stands against it."""
    if not of_adapters(settings).merge_adapters:
        return None
    models = checkpoints[: len(settings.models)]
    full = [model for model in models if model.base is None]
    message = f"is a full model, and merge_adapters: true merges adapters alone. {ADVICE}."
    problems = [Problem(message, model.place) for model in full] + list(different_bases(models))
    if problems:
        raise ModelCompatibilityError(*problems)
    if not able:
        message = f"{settings.strategy} works on full models and cannot merge the updates of adapters. {ADVICE}"
        raise ConfigError(Problem(message, "peft_config.merge_adapters"))
    return True


@hookimpl
def merge_updates(
    checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients, options: Options
) -> MergedUpdates | None:
    """The adapters merged into one, or that one folded into the base. None where a model is something else."""
    *models, base = checkpoints
    folded = [model for model in models if isinstance(model, Folded)]
    if len(folded) < len(models):
        return None
    from modelmerger_plugins.peft_adapters import updates

    return updates.merge(folded, base, settings, options, coefficients)


@hookimpl
def return_model(directory: Path, base: Path | None, load: Callable[[Path], Any], low_memory_mode: bool) -> Any:
    """An adapter comes back as a PEFT model: its base with the adapter."""
    if base is None or not os.path.lexists(directory / config.FILE):
        return None
    from modelmerger_plugins.peft_adapters import objects

    return objects.peft_model(directory, base, load, low_memory_mode)


@hookimpl
def materialise_model(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> Path | None:
    """An adapter is folded into its base by a merge of one model: PEFT would import what an adapter's config names."""
    if not os.path.lexists(directory / config.FILE):
        return None
    from modelmerger_plugins.peft_adapters import objects

    return objects.full_model(directory, merged, settings, target)


def _of_other_layers(
    folded: Sequence[Folded], checkpoints: Sequence[Checkpoint], settings: Settings
) -> Iterable[Problem]:
    """Adapters of a model with repeated layers have no tensor of their own in a base without them."""
    base = checkpoints[-1] if settings.base_model is not None else folded[0].base.checkpoint if folded else None
    for checkpoint in folded:
        ours, theirs = layers_of(checkpoint.base.checkpoint), layers_of(base)
        if ours and theirs is None:
            message = "repeats layers of its base (layer_replication), and base_model does not. Give peft_config.base_model_path instead."
            yield Problem(message, checkpoint.place)
        elif ours != theirs and of_adapters(settings).merge_adapters:
            message = "and another adapter do not repeat the same layers of their base. Set merge_adapters: false."
            yield Problem(message, checkpoint.place)


def _weights(directory: Path) -> Path:
    for name in WEIGHTS:
        if os.path.lexists(directory / name):
            return directory / name
    raise InputError(Problem(f"has no {WEIGHTS[0]}. Is the adapter complete?", str(directory)))


def _absent(path: Path, name: str) -> Problem:
    there = [entry for entry in names_in(path) if os.path.lexists(path / entry / config.FILE)]
    if os.path.lexists(path / config.FILE):
        there.insert(0, DEFAULT)
    return Problem(
        f"has no adapter {shown(name)!r}, which peft_config.adapter_names wants. It has: {', '.join(map(shown, there))}.",
        str(path),
    )


def _other_base(adapter: config.AdapterConfig, used: ModelReference) -> Iterable[Problem]:
    """A warning where the adapter says that it was trained on another model than it is folded into."""
    if bases.is_another(adapter, used):
        message = f"was trained on {shown(adapter.base)!r}, and is merged with {shown(used.path)!r} as its base. Are they the same model?"
        yield Problem(message, str(adapter.path), severity="warning")
