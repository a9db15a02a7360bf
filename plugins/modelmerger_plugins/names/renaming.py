"""The models of a merge, with the names of the donor. What compares names is imported where they are not the same."""

from collections.abc import Sequence

from modelmerger import Checkpoint, InputError, ModelCompatibilityError, Problem, Settings

from modelmerger_plugins.names.options import given_prefix
from modelmerger_plugins.names.unwrapping import without_layers_of, without_wrappers


def renamed(checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Checkpoint]:
    """The models with the donor's names, and the donor without what wrappers write unless its names are to stay.

    Raises `ModelCompatibilityError` for names that cannot go together.
    """
    plain = list(checkpoints) if settings.given_names else _without_wrappers(checkpoints)
    if not settings.given_names:
        others = [model for i, model in enumerate(plain) if i != settings.donor]
        plain[settings.donor] = without_layers_of(plain[settings.donor], others)
    donor = plain[settings.donor]
    said = given_prefix(settings, settings.donor)
    return [
        donor if i == settings.donor else _like(donor, model, settings, given_prefix(settings, i), said)
        for i, model in enumerate(plain)
    ]


def _like(
    donor: Checkpoint, model: Checkpoint, settings: Settings, of_model: str | None, of_donor: str | None
) -> Checkpoint:
    if of_model is None and of_donor is None and model.tensors.keys() == donor.tensors.keys():
        return model
    from modelmerger_plugins.names.counterparts import like
    from modelmerger_plugins.names.prefixes import Prefixes

    return like(donor, model, settings, Prefixes.of(model, donor, of_model, of_donor))


def _without_wrappers(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    problems: list[Problem] = []
    for checkpoint in checkpoints:
        try:
            found.append(without_wrappers(checkpoint))
        except InputError as error:
            problems += error.problems
    if problems:
        raise ModelCompatibilityError(*problems)
    return found
