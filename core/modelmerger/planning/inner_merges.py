"""The plans of merges within a merge: made as that of the outermost one, and carried out as far as they are read."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from modelmerger.config.places import inside_merge, is_key
from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.composition import compose
from modelmerger.planning.make_plan import make_plan, named
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition, DeferredComposition
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.plan import WHOLE_MODEL, MergePlan
from modelmerger.values.settings import Settings

MakeMerged = Callable[[str, MergePlan, Sequence[Checkpoint], Hooks, Settings, Composition | None], Checkpoint]
"""Makes the checkpoint of a planned merge, of a name for it, its plan, and what it takes to carry that out."""


def plan_inner(
    settings: Settings, hooks: Hooks, checkpoints: Sequence[Checkpoint], revisions: Sequence[str]
) -> tuple[MergePlan, Composition | None, list[Problem]]:
    """The plan of a merge within another one, what its models are composed to, and what is to be said of it.

    Raises what forbids it, each problem with its whole place in the config.
    """
    with placed(settings):
        notes = hooks.models.check_compatibility(checkpoints, settings)
        raise_errors(notes, ModelCompatibilityError, strict=settings.strict)
        composition = compose(hooks, checkpoints, settings)
        if isinstance(composition, DeferredComposition):
            raise ConfigError("depends on weights in what it writes, which only the outermost merge can. Publish it.")
        if composition is not None and (composition.updates or composition.writes != WHOLE_MODEL):
            what, advice = "merges what its models change of their base", "Merge full models"
            if hooks.strategy.composes:
                what, advice = f"writes no whole model but {composition.writes}", "Choose another strategy"
            raise ConfigError(f"{what}, which only the outermost merge can. {advice}.")
        plan = make_plan(hooks, checkpoints, settings, revisions, composition)
        plan = named(plan, hooks, checkpoints, settings, composition)
        return plan, composition, [_inside(settings, note) for note in (*notes, *plan.notes)]


@contextlib.contextmanager
def placed(settings: Settings) -> Iterator[None]:
    """Says the whole place of problems that are about a key of this merge."""
    try:
        yield
    except (ConfigError, ModelCompatibilityError) as error:
        raise type(error)(*(_inside(settings, problem) for problem in error.problems)) from error


def _inside(settings: Settings, problem: Problem) -> Problem:
    return inside_merge(settings.where, problem) if is_key(problem.where, settings.sections) else problem
