"""Models with the weights of their modules, which are merged with those of the modules of the same names."""

from collections.abc import Sequence

from modelmerger import Checkpoint, InputError, JoinedView, LoadContext, ModelReference, Problem, Settings

from modelmerger_plugins.tokenizer.modules.listed import folders_with_weights, home, joined_folders
from modelmerger_plugins.tokenizer.updates import merged_as_updates


def with_modules(
    checkpoints: Sequence[Checkpoint], settings: Settings, context: LoadContext
) -> list[Checkpoint] | None:
    """The models with the weights of the modules that all of them have; None where there is no such module.

    A tensor is named by the donor's folder: `2_Dense/linear.weight`. Raises `InputError` with all weights that cannot
    be opened.
    """
    if merged_as_updates(checkpoints, settings):  # the modules have none
        return None
    donor = checkpoints[settings.donor]
    wanted = folders_with_weights(donor)
    folders = [folders_with_weights(checkpoint) for checkpoint in checkpoints] if wanted else []
    shared = {name: folder for name, folder in wanted.items() if all(name in of_one for of_one in folders)}
    if not shared:
        return None
    problems: list[Problem] = []
    views: list[Checkpoint] = []
    for checkpoint, of_one in zip(checkpoints, folders, strict=True):
        there = joined_folders(checkpoint)  # of a merge within this one, which has them by the same folders
        wanted = {f"{folder}/": of_one[name] for name, folder in shared.items() if of_one[name] not in there}
        try:
            others = {
                prefix: context.open_model(ModelReference(f"{home(checkpoint)}/{folder}", checkpoint.name, ""))
                for prefix, folder in wanted.items()
            }
        except InputError as error:
            problems += error.problems
            continue
        views.append(JoinedView(checkpoint, others) if others else checkpoint)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return views
