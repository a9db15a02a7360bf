"""Everything that happens before the first write: models are opened, checked against each other, and planned for."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from attrs import evolve, field, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.output.earlier.apart import Inputs, inputs_of
from modelmerger.output.recorded import Recording
from modelmerger.planning.beside.sidecars import Sidecars, plan_sidecars
from modelmerger.planning.composition import compose, finish_composition
from modelmerger.planning.configs import Configs, adjusted_configs
from modelmerger.planning.inner_merges import MakeMerged
from modelmerger.planning.make_plan import make_plan, named
from modelmerger.planning.opening import Locate, ModelCache, Opened, open_models
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition, DeferredComposition
from modelmerger.values.errors import ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import InputTensors
from modelmerger.values.model_reference import Location
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.work.figures import Rows
from modelmerger.values.work.inquiry import Inquiry


@frozen(eq=False, repr=False)
class Prepared:
    """A merge that has passed every check so far."""

    settings: Settings
    """Those of the merge, with the base model that the models brought if the config names none."""
    hooks: Hooks
    """The plugins of the run."""
    checkpoints: Sequence[Checkpoint]
    """The models in the order of the config, then the base model if there is one."""
    plan: MergePlan
    """What the merge will make; without a digest until it is `named`."""
    notes: Sequence[Problem] = field(factory=list)
    """What the user should know of it."""
    composition: Composition | None = None
    """What the models are composed to; None where they are merged tensor by tensor."""
    configs: Configs = field(factory=dict)
    """The configs of the merged model."""
    located: Mapping[str, Location] = field(factory=dict)
    """Where everything that the user named was found, by its path."""
    inquiries: Sequence[Inquiry] = ()
    """What must be answered before anything is published."""
    sidecars: Sidecars = field(factory=Sidecars)
    """The files beside the weights."""
    figures: Mapping[str, Rows] = field(factory=dict)
    """What plugins measured of what is written, by title; known once the merge is done."""
    input_tensors: Mapping[str, InputTensors] = field(factory=dict)
    """What becomes of the tensors of each model; known once the merge is done."""

    @property
    def input_files(self) -> list[FileIdentity]:
        """Every file that the output is made of."""
        return list(dict.fromkeys([*self.plan.inputs, *self.sidecars.copied]))

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """What the plan's tensors are read from."""
        return self.checkpoints if self.composition is None else [self.composition.checkpoint]

    @property
    def inputs(self) -> Inputs:
        """Everything that is read."""
        return inputs_of(self.settings, self.checkpoints, self.located)

    @property
    def recording(self) -> Recording:
        """How documents of the output say where things lay."""
        return Recording.of(chain(*self.inputs.values()), as_given=self.settings.options.record_paths)

    def with_stock(self) -> "Prepared":
        """The same with what becomes of the tensors of each model."""
        from modelmerger.planning.beside.input_tensors import tensors_taken

        return evolve(self, input_tensors=tensors_taken(self.plan, self.sources, self.checkpoints))

    def named(self, kernels: Mapping[str, str]) -> "Prepared":
        """The same with the digest of the plan. kernels: what this machine's arithmetic comes to, a part of it."""
        plan = named(self.plan, self.hooks, self.checkpoints, self.settings, self.composition, kernels)
        return evolve(self, plan=plan)


@contextlib.contextmanager
def prepare(
    settings: Settings,
    hooks: Hooks,
    cache: ModelCache | None = None,
    locate: Locate | None = None,
    *,
    merged: MakeMerged,
    thorough: Callable[[MergePlan], bool] = lambda _: False,
    opened: Callable[[Settings, Inputs], None] = lambda _, __: None,
    composed: bool = True,
) -> Iterator[Prepared]:
    """Opens, checks and plans a merge. The models are open while the context lasts. Raises whatever forbids the merge.

    cache, locate, merged: see `open_models`. thorough: whether what is costly is to be found out about a merge too; it
    is asked of its inquiries. opened: called before models are looked at, with the settings and all that is read.
    composed: False to plan the merge tensor by tensor, as if nobody composed the models.
    """
    with open_models(settings, hooks, cache, locate, merged=merged) as models:
        opened(models.settings, inputs_of(models.settings, models.checkpoints, models.located))
        notes = _compatible(hooks, models)
        revisions = [location.revision for location in models.locations]
        found = compose(hooks, models.checkpoints, models.settings) if composed else None
        composition = finish_composition(hooks, found)
        plan = make_plan(hooks, models.checkpoints, models.settings, revisions, composition)
        configs = adjusted_configs(hooks, models.checkpoints, models.settings, plan, composition)
        of_output, inquiries = _check_output(hooks, models, plan, configs, thorough=thorough(plan))
        sidecars = plan_sidecars(hooks, plan, models.checkpoints, configs, models.settings, models.located)
        said = [*plan.notes, *of_output, *sidecars.problems]
        raise_errors(said, ModelCompatibilityError, strict=settings.strict)
        plan, notes = evolve(plan, beside=sidecars.beside), [*notes, *said]
        yield Prepared(
            settings=models.settings,
            hooks=hooks,
            checkpoints=models.checkpoints,
            plan=plan,
            notes=notes,
            composition=composition,
            configs=configs,
            located=models.located,
            inquiries=inquiries,
            sidecars=sidecars,
        )


@frozen(eq=False, repr=False)
class Checked:
    """Models that can be merged, as far as headers and JSON say."""

    settings: Settings
    """As in `Prepared`."""
    inputs: Inputs
    """As in `Prepared`."""
    plan: MergePlan | None
    """None where it depends on the weights."""
    notes: list[Problem]
    """What the user should know of the merge."""
    inquiries: list[Inquiry]
    """What is to be asked in another process."""


@contextlib.contextmanager
def check_models(
    settings: Settings, hooks: Hooks, cache: ModelCache | None = None, *, merged: MakeMerged
) -> Iterator[Checked]:
    """Checks a merge from headers and JSON alone. The models are open while the context lasts. Raises the errors.

    cache, merged: see `open_models`.
    """
    with open_models(settings, hooks, cache, merged=merged) as models:
        notes = _compatible(hooks, models)
        found = compose(hooks, models.checkpoints, models.settings)
        if isinstance(found, DeferredComposition):
            plan, said, inquiries = None, found.notes, list[Inquiry]()
        else:
            plan = make_plan(hooks, models.checkpoints, models.settings, composition=found)
            configs = adjusted_configs(hooks, models.checkpoints, models.settings, plan, found)
            of_output, inquiries = _check_output(hooks, models, plan, configs, thorough=True)
            sidecars = plan_sidecars(hooks, plan, models.checkpoints, configs, models.settings, models.located)
            said = [*plan.notes, *of_output, *sidecars.problems]
        raise_errors(said, ModelCompatibilityError, strict=settings.strict)
        inputs = inputs_of(models.settings, models.checkpoints, models.located)
        yield Checked(models.settings, inputs, plan, [*notes, *said], inquiries)


def _check_output(
    hooks: Hooks, models: Opened, plan: MergePlan, configs: Configs, *, thorough: bool
) -> tuple[list[Problem], list[Inquiry]]:
    """What plugins say about what will be written, and their inquiries."""
    if models.settings.options.check_loading is False:
        return [], []
    return hooks.output.check_output(plan, models.checkpoints, configs, models.settings, thorough=thorough)


def _compatible(hooks: Hooks, models: Opened) -> list[Problem]:
    problems = hooks.models.check_compatibility(models.checkpoints, models.settings)
    raise_errors([*models.notes, *problems], ModelCompatibilityError, strict=models.settings.strict)
    return list(dict.fromkeys([*models.settings.notes, *models.notes, *problems]))
