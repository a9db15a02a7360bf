"""Opens PEFT adapters: a directory with adapter_config.json is its base model with the adapter folded in, computed as it is read.

Adapter files are read here, without PEFT; nothing that they name is imported, downloaded or run.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import field, frozen, validators
from modelmerger import (
    Checkpoint,
    Coefficients,
    Donor,
    InputError,
    LoadContext,
    MergedUpdates,
    ModelReference,
    Problem,
    Settings,
    hookimpl,
)
from modelmerger.inputs.loading import names_in
from modelmerger.values.option_checks import Check, between, in_yaml
from modelmerger.values.text import shown

from modelmerger_plugins.peft_adapters import bases, config
from modelmerger_plugins.peft_adapters.folding import Adapter, Folded
from modelmerger_plugins.peft_adapters.keys import read_keys
from modelmerger_plugins.peft_adapters.replication import layers_of

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WIDE = ("float32", "float64")
DEFAULT = "default"
METHODS = ("linear", "cat", "svd", "peft_linear")
_method = Check(
    {"enum": [*METHODS, None]},
    lambda value: None if value in METHODS else f"must be one of {', '.join(METHODS)}, got {in_yaml(value)}",
)


@frozen(kw_only=True)
class Options:
    """preserve_base_model: for adapters with merge_adapters: true: the merged adapter is written; false: a full model.

    merge_method: for adapters with merge_adapters: true: how their factors are put together.
    rank: for merge_method svd: the rank of the merged adapter; else the largest rank among the adapters.
    """

    preserve_base_model: bool | None = None
    merge_method: str | None = field(default=None, validator=validators.optional(_method))
    rank: int | None = field(default=None, validator=validators.optional(between(1, 2**20)))


@hookimpl
def declare_options() -> type:
    """The options of this plugin."""
    return Options


@hookimpl
def load_model(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """The base with the adapters of this directory folded in; None where the directory is no adapter."""
    path = Path(os.path.expanduser(reference.path))
    names = context.settings.peft.adapter_names if context.settings and context.settings.peft else (DEFAULT,)
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
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """What the options ask of adapters that cannot be, and what is to be said of each adapter."""
    options = settings.plugin_options["peft_adapters"]
    folded = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, Folded)]
    merge_adapters = bool(settings.peft and settings.peft.merge_adapters)
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
def merge_updates(
    checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
) -> MergedUpdates | None:
    """The adapters merged into one, or that one folded into the base. None where a model is something else."""
    *models, base = checkpoints
    folded = [model for model in models if isinstance(model, Folded)]
    if len(folded) < len(models):
        return None
    from modelmerger_plugins.peft_adapters import updates

    return updates.merge(folded, base, settings, settings.plugin_options["peft_adapters"], coefficients)


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
        elif ours != theirs and settings.peft is not None and settings.peft.merge_adapters:
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
