"""Everything that happens before the first write: models are opened, checked against each other, and planned for."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.make_plan import make_plan
from modelmerger.planning.opening import Locate, ModelCache, Opened, open_models
from modelmerger.planning.updates import find_update_coefficients, merge_updates
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.model_reference import Location
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.updates import MergedUpdates


@frozen(eq=False)
class Prepared:
    """A merge that has passed every check so far."""

    settings: Settings
    """Those of the merge, with the base model that the models brought if the config names none."""
    hooks: Hooks
    """The plugins of the run."""
    checkpoints: Sequence[Checkpoint]
    """The models in the order of the config, then the base model if there is one."""
    plan: MergePlan
    """What the merge will make."""
    notes: Sequence[Problem] = field(factory=list)
    """What the user should know of it."""
    updates: MergedUpdates | None = None
    """The merged updates of the models, where updates are merged."""
    located: Mapping[str, Location] = field(factory=dict)
    """Where everything that the user named was found, by its path."""

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """What the plan's tensors are read from."""
        return self.checkpoints if self.updates is None else [self.updates.checkpoint]


@contextlib.contextmanager
def prepare(
    settings: Settings, hooks: Hooks, cache: ModelCache | None = None, locate: Locate | None = None
) -> Iterator[Prepared]:
    """Opens, checks and plans a merge. The models are open while the context lasts. Raises whatever forbids the merge.

    cache, locate: see `open_models`.
    """
    with open_models(settings, hooks, cache, locate) as models:
        notes = _compatible(hooks, models)
        revisions = [location.revision for location in models.locations]
        updates = merge_updates(hooks, models.checkpoints, models.settings)
        plan = make_plan(hooks, models.checkpoints, models.settings, revisions, updates)
        notes += plan.notes
        yield Prepared(models.settings, hooks, models.checkpoints, plan, notes, updates, models.located)


def check_models(settings: Settings, hooks: Hooks, cache: ModelCache | None = None) -> list[Problem]:
    """Warnings and notes about the merge, from headers and JSON alone. Raises the errors. cache: see `open_models`."""
    with open_models(settings, hooks, cache) as models:
        notes = _compatible(hooks, models)
        updates = find_update_coefficients(hooks, models.checkpoints, models.settings)
        if updates is not None:  # their ranks, and so the plan, depend on the weights
            return [*notes, *updates.notes]
        return [*notes, *make_plan(hooks, models.checkpoints, models.settings).notes]


def _compatible(hooks: Hooks, models: Opened) -> list[Problem]:
    problems = hooks.models.check_compatibility(models.checkpoints, models.settings)
    raise_errors(problems, ModelCompatibilityError)
    return [*models.notes, *problems]
