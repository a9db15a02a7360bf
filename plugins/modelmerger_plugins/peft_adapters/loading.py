"""A directory of adapters, opened as its base with them folded in. No weights are read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve
from modelmerger import (
    Checkpoint,
    CheckpointView,
    Donor,
    InputError,
    LoadContext,
    ModelReference,
    Problem,
    Settings,
    is_head,
    shown,
)

from modelmerger_plugins.peft_adapters.finding import weights_of
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.reading import bases, config
from modelmerger_plugins.peft_adapters.reading.keys import read_keys
from modelmerger_plugins.peft_adapters.reading.saved_keys import as_peft_writes
from modelmerger_plugins.peft_adapters.section import BASE_KEY, FILE, of_adapters, whole_key

UNTIE = "options.untie"
"""The key of the option that writes tied matrices both."""
WIDE = ("float32", "float64")
"""Values of torch_dtype for which changed tensors are made in float64, so that what is written is rounded once."""


def load(reference: ModelReference, directories: Sequence[Path], context: LoadContext) -> Checkpoint:
    """The base with the adapters in these directories folded in.

    Raises `InputError` with everything that stands against merging them.
    """
    path, settings = reference.local, context.settings
    configs = [config.read_config(directory) for directory in directories]
    weights = [weights_of(directory) for directory in directories]
    base = bases.find_base(configs[0], context)
    separate = not of_adapters(settings).merge_adapters
    if separate and settings and settings.options.untie:
        base = evolve(base, checkpoint=_untied(base.checkpoint))
    adapters, files, problems, notes = [], [], [], []
    for directory, of_adapter, held in zip(directories, configs, weights, strict=True):
        file = context.open_model(ModelReference(str(held), reference.name, reference.where))
        stored, of_keys = as_peft_writes(file)
        notes += of_keys
        reading = read_keys(of_adapter, stored, base, whole_key(settings, UNTIE) if separate else "")
        problems += reading.problems
        notes += [*of_adapter.notes, *_other_base(of_adapter, base.reference)]
        notes += _beside_merge(of_adapter, base.reference, settings)
        allow_nonfinite = bool(settings and settings.options.allow_nonfinite)
        adapters.append(Adapter(stored, reading.changes, allow_nonfinite, of_adapter))
        files += [context.open_file(directory / FILE), *stored.files]
    if problems:
        raise InputError(*problems)
    return Folded(
        name=reference.name,
        base=base,
        adapters=adapters,
        files=(*files, *base.checkpoint.files),
        donor=Donor(path.absolute(), base.checkpoint.donor.config),
        wide=bool(settings and settings.options.torch_dtype in WIDE),
        notes=notes,
    )


def _untied(base: Checkpoint) -> Checkpoint:
    """The base with each tied matrix as one of its own, for `untie`, which writes both."""
    aliases = {alias: tensor for alias, tensor in base.aliases.items() if is_head(alias)}
    return CheckpointView(base, {name: name for name in base.tensors} | aliases) if aliases else base


def _other_base(adapter: config.AdapterConfig, used: ModelReference) -> Iterator[Problem]:
    """A warning where the adapter says that it was trained on another model than it is folded into."""
    if bases.is_another(adapter, used):
        message = (
            f"was trained on {shown(adapter.base)!r}, and is merged with {shown(used.path)!r} as its base. "
            "Are they the same model?"
        )
        yield Problem(message, str(adapter.path), severity="warning")


def _beside_merge(adapter: config.AdapterConfig, used: ModelReference, settings: Settings | None) -> Iterator[Problem]:
    """A warning where base_model is a merge: that is no base of adapters, and nothing else says what theirs is."""
    if settings and "base_model" in settings.merges and not of_adapters(settings).base_model_path:
        message = (
            f"is folded into {shown(used.path, 80)!r}, which it names, and not into base_model, which is a merge. "
            f"Give {whole_key(settings, BASE_KEY)} to say that this is meant, or publish the merge and give it there."
        )
        yield Problem(message, str(adapter.path), severity="warning")
