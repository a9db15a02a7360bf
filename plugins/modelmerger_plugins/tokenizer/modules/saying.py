"""What is to be said of modules whose weights are not merged."""

from collections.abc import Iterator, Sequence

from modelmerger import PICKLED_SUFFIXES, Checkpoint, FilesBeside, Problem, shown

from modelmerger_plugins.tokenizer.modules.listed import (
    MODULES,
    WEIGHTS,
    folders_with_weights,
    home,
    joined_folders,
    weights_in,
    without_weights,
)


def about_modules(beside: FilesBeside, checkpoints: Sequence[Checkpoint], donor: Checkpoint) -> Iterator[Problem]:
    """A warning for each file of weights that is the donor's alone, or is left behind and needed, or is not there."""
    directory, joined = home(donor), joined_folders(donor)
    for folder in without_weights(directory):
        message = f"lists {shown(folder, 40)}, which holds no weights, so the merged model does not load. Add them."
        yield Problem(message, f"{directory}/{MODULES}", severity="warning")
    for module, folder in folders_with_weights(donor).items():
        if folder in joined:
            continue
        lacking = [one.name for one in checkpoints if module not in folders_with_weights(one)]
        why = f"'{shown(lacking[0], 40)}' has no weights of the module '{shown(module, 40)}'" if lacking else _UPDATES
        for name in (f"{folder}/{name}" for name in weights_in(directory, folder)):
            if name in beside.copied and name.endswith(WEIGHTS) and len(checkpoints) > 1:
                message = f"is the donor's as it is, and not merged: {why}."
                yield Problem(message, f"{directory}/{name}", severity="warning")
            elif name not in beside.copied and name.endswith(PICKLED_SUFFIXES):
                message = "is pickled and left behind, and modules.json needs it. Convert it to safetensors."
                yield Problem(message, f"{directory}/{name}", severity="warning")


_UPDATES = "updates of adapters are merged, and it has none"
