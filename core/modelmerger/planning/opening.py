"""Finds and opens the models of a config, and keeps them open from one merge to the next on request."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Self

from attrs import evolve, field, frozen

from modelmerger.config.models_in_memory import MERGES
from modelmerger.config.naming import references
from modelmerger.config.sections import missing_base
from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.loading import LoadContext
from modelmerger.inputs.unopened_models import unopened
from modelmerger.planning.composition import check_same_base
from modelmerger.planning.inner_merges import MakeMerged, placed, plan_inner
from modelmerger.planning.viewed_models import view_models, with_layers
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, InputError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.file_identity import FileIdentity, identify
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.settings import Settings

Locate = Callable[[ModelReference], Location]
"""Knows where a model is that the user names."""


@frozen(eq=False, repr=False)
class Opened:
    """The models of a config, open."""

    settings: Settings
    """Those of the merge, with the base model that the models brought if the config names none."""
    checkpoints: Sequence[Checkpoint]
    """The models in the order of the config, then the base model if there is one, as plugins view them; within another
    merge, as the strategy alone does."""
    locations: Sequence[Location]
    """Where each of them was found."""
    located: Mapping[str, Location] = field(factory=dict)
    """Where everything that the user named was found, by its path."""

    said: Sequence[Problem] = ()
    """What is to be said of how they are seen."""

    @property
    def notes(self) -> list[Problem]:
        """What the user should know of where the models were found, how they are seen, and of merges among them."""
        return list(dict.fromkeys([*(note for place in self.locations for note in place.notes), *self.said]))


@frozen(eq=False, repr=False)
class _OpenModels:
    files: InputFiles
    models: Opened
    seen: dict[str, list[FileIdentity]]
    """The files at each path that was opened, as they were before it; empty for models that will not be cached."""


class ModelCache:
    """The models that were opened last, with their open files, for the next merge of the same models."""

    def __init__(self) -> None:
        self._asked: Any = None
        self._models: _OpenModels | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._models is not None:
            self._models.files.close()
            self._models = None

    def take(self, settings: Settings) -> _OpenModels | None:
        """Removes the cached models and returns them, if they are those of the settings and no file of theirs changed.

        Else closes them.
        """
        found, self._models = self._models, None
        if found is None:
            return None
        if self._asked == _asked(settings) and all(_files_at(path) == files for path, files in found.seen.items()):
            return found
        found.files.close()
        return None

    def keep(self, settings: Settings, models: _OpenModels) -> None:
        """Caches these models; those that were cached before are closed."""
        self.__exit__()
        self._asked, self._models = _asked(settings), models


@contextlib.contextmanager
def open_models(
    settings: Settings,
    hooks: Hooks,
    cache: ModelCache | None = None,
    locate: Locate | None = None,
    *,
    merged: MakeMerged,
) -> Iterator[Opened]:
    """Opens the models of a config while the context lasts. Adapters bring a base model where the config names none.

    With `cache_models`, models in `cache` are used again, and the open ones go there when the context ends without an
    error; plugins view them anew each time. Models in memory are never cached: nobody can tell whether they changed.
    locate: knows where models are; None to ask the plugins. merged: makes the checkpoint of a model that is a merge
    itself; one that the config names is planned once, wherever it is used.
    """
    if not settings.options.cache_models or settings.has_live:
        cache = None
    current = cache.take(settings) if cache else None
    if current is None:
        locating = locate or hooks.models.locate_model
        current = _open(settings, hooks, locating, merged, watched=cache is not None)
    try:
        models = _with_base(hooks, evolve(current.models, settings=settings))
        yield _viewed(hooks, models, loading_context(hooks, models.settings, current.files))
    except BaseException:
        current.files.close()
        raise
    if cache is not None:
        cache.keep(settings, current)
    else:
        current.files.close()


def _asked(settings: Settings) -> Any:
    """Everything that the opening of models depends on; the strategy and the weights do not matter."""
    models = [(model.path, model.name) for model in settings.models]
    merges = settings.base_model, settings.merges
    return models, merges, settings.sections, settings.options, settings.plugin_options


def _files_at(path: str) -> list[FileIdentity]:
    """The file at a path, or all files of a directory and its folders, as they are now; links are followed."""
    inside = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    found = []
    for file in inside or [path]:
        with contextlib.suppress(OSError):
            found.append(identify(file, os.stat(file)))
    return found


def _open(settings: Settings, hooks: Hooks, locate: Locate, merged: MakeMerged, watched: bool) -> _OpenModels:
    options = settings.options
    files = InputFiles(1 if options.sequential_loading else 32, options.io, options.workers)
    opening = _Opening(files, locate, merged, watched, settings.given.get(MERGES, ()))
    try:
        return _OpenModels(files, opening.open_all(settings, hooks), opening.seen)
    except BaseException:
        files.close()
        raise


class _Opening:
    """Opens the models of a config and of the merges within it, all of which read through the same files."""

    def __init__(
        self, files: InputFiles, locate: Locate, merged: MakeMerged, watched: bool, names: Iterable[str]
    ) -> None:
        """names: those of the merges that paths can name."""
        self._names = names
        self.seen: dict[str, list[FileIdentity]] = {}
        self._files, self._ask, self._merged, self._watched = files, locate, merged, watched
        self._located: dict[str, Location] = {}
        self._made: dict[int, tuple[Checkpoint, Location]] = {}

    def open_all(self, settings: Settings, hooks: Hooks) -> Opened:
        """The models of one merge, in the order of its config. Raises `InputError` with all that cannot be opened."""
        context = LoadContext(self._files, settings, partial(self._load, hooks), self._locate)
        problems: list[Problem] = []
        found: list[tuple[Checkpoint, Location]] = []
        for reference in references(settings):
            try:
                if (inner := settings.merges.get(reference.where)) is not None:
                    found.append(self._merge(reference, inner, hooks.merges[reference.where]))
                    continue
                location = context.locate(reference)
                path = str(location.directory)
                found.append((self._load(hooks, evolve(reference, path=path, given=reference.path), context), location))
            except ModelCompatibilityError:
                raise
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(*dict.fromkeys(problems))
        checkpoints, locations = [checkpoint for checkpoint, _ in found], [location for _, location in found]
        return Opened(settings, checkpoints, locations, self._located)

    def _merge(self, reference: ModelReference, inner: Settings, hooks: Hooks) -> tuple[Checkpoint, Location]:
        """A merge as a model, under the name that it has where it is used."""
        if id(inner) not in self._made:
            models = self.open_all(inner, hooks)
            with placed(inner):
                models = _with_base(hooks, models)
                models = _viewed(hooks, models, loading_context(hooks, models.settings, self._files))
            revisions = [location.revision for location in models.locations]
            plan, composition, notes = plan_inner(models.settings, hooks, models.checkpoints, revisions)
            made = self._merged(reference.name, plan, models.checkpoints, hooks, models.settings, composition)
            self._made[id(inner)] = made, Location(inner.where, notes=[*models.notes, *notes])
        made, location = self._made[id(inner)]
        named = copy(made)
        named.name = reference.name
        return named, location

    def _locate(self, reference: ModelReference) -> Location:
        """A path is located once for all merges, so that it is one state of the model."""
        if reference.path not in self._located:
            self._located[reference.path] = self._ask(reference)
        return self._located[reference.path]

    def _load(self, hooks: Hooks, reference: ModelReference, context: LoadContext) -> Checkpoint:
        if self._watched:
            self.seen.setdefault(reference.path, _files_at(reference.path))
        return _load(hooks, reference, context, self._names)


def _with_base(hooks: Hooks, models: Opened) -> Opened:
    bases = [checkpoint.base for checkpoint in models.checkpoints if checkpoint.base is not None]
    if models.settings.base_model is None and bases:
        if hooks.strategy.traits.wants_base:
            raise_errors(list(check_same_base(models.checkpoints)), ModelCompatibilityError)
        return Opened(
            evolve(models.settings, base_model=bases[0].reference.path),
            [*models.checkpoints, bases[0].checkpoint],
            [*models.locations, bases[0].location],
            models.located,
        )
    if models.settings.base_model is None and hooks.strategy.traits.wants_base:
        raise ConfigError(missing_base(models.settings.strategy, hooks.sections))
    return models


def loading_context(hooks: Hooks, settings: Settings, files: InputFiles) -> LoadContext:
    """What views open more of a model with: files that the models' directories hold, by whichever plugin knows them."""
    return LoadContext(files, settings, lambda reference, context: _load(hooks, reference, context, ()))


def _viewed(hooks: Hooks, models: Opened, context: LoadContext) -> Opened:
    """As the config takes layers of them, then as plugins view them."""
    checkpoints, said = view_models(hooks, with_layers(models.checkpoints, models.settings), models.settings, context)
    return evolve(models, checkpoints=checkpoints, said=said)


def _load(hooks: Hooks, reference: ModelReference, context: LoadContext, names: Iterable[str]) -> Checkpoint:
    if isinstance(reference.source, Checkpoint):  # open already
        return reference.source
    checkpoint = hooks.models.load_model(reference, context)
    if checkpoint is None:
        raise InputError(unopened(reference, context.settings, names))
    return checkpoint
