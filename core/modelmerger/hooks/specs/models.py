"""Hooks about models: where they are, how they are opened, and whether they can be merged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelmerger.hooks.markers import hookspec
from modelmerger.inputs.loading import LoadContext
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Coefficients, Composition, DeferredComposition
from modelmerger.values.errors import Problem
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.settings import Settings


@hookspec
def explain_config(config: Mapping[str, Any], problems: Sequence[Problem]) -> Sequence[Problem] | None:
    """Says in better words what is wrong with a config. None: it is said as it is.

    Called only where a config is refused, with everything that is wrong with it. The plugins that are always on are
    asked in turn, and each gets what the one before it returned. `config` is what the user gave, whatever that holds;
    it may not be changed. The answer holds one problem at least, since no config becomes right by it. There are no
    options: they may be what is wrong.

    ```python
    from attrs import evolve
    from modelmerger import hookimpl

    @hookimpl
    def explain_config(config, problems):              # the team used to call its base model `origin`
        if "origin" not in config:
            return None
        return [evolve(problem, message=problem.message.replace("'origin'", "'origin' (base_model by now)"))
                for problem in problems]
    ```
    """


@hookspec(firstresult=True)
def expand_model(reference: ModelReference, model_options: Any) -> Mapping[str, float] | None:
    """Returns the models that an entry of `models` stands for: path → share of its weight. None: ask the next plugin.

    Called for each entry that has a path, of the outermost merge and of those within it, before models have names. What
    it returns is as if the config had it: the members take the entry's place in that order, each with the entry's keys,
    and with its share of the weight. Shares are finite, and usually sum to 1. `model_options` is an instance of the
    plugin's own `ModelOptions`, whose keys the members do not get; None where it has none. `reference` has no name yet.
    There are no options, since the config is not checked yet. Raise `ConfigError` to refuse an entry.

    ```python
    import os
    from modelmerger import hookimpl

    @hookimpl
    def expand_model(reference):                       # team:chats are all models in a folder that everyone has
        if reference.path != "team:chats":
            return None
        paths = sorted(entry.path for entry in os.scandir("/models/of-the-team") if entry.is_dir())
        return {path: 1 / len(paths) for path in paths}
    ```
    """


@hookspec
def check_config(settings: Settings, options: Any) -> Iterable[Problem]:
    """Yields problems with a config, from the config alone. Every plugin and the strategy are asked.

    Called whenever a config is checked, once the core's own checks have passed. Errors become a `ConfigError` (exit
    status 2). Warnings and notes are among those of the merge: in `check`, in the report, in the log and in the
    manifest.

    ```python
    from modelmerger import Problem, hookimpl

    @hookimpl
    def check_config(settings):
        if len(settings.models) > 8:
            yield Problem("this team merges at most eight models", "models")
    ```
    """


@hookspec(firstresult=True)
def locate_model(reference: ModelReference, options: Any) -> Location | None:
    """Returns where a model of the config is on this disk, and brings it there if need be. None: ask the next plugin.

    If no plugin answers, the model is at its path. Only paths that the user wrote come here: a path in a model's own
    files is hostile text. Raise `InputError` to refuse a model.

    ```python
    from pathlib import Path
    from modelmerger import Location, hookimpl

    @hookimpl
    def locate_model(reference):
        if not reference.path.startswith("team:"):     # team:chat is in a folder that everyone has
            return None
        return Location(Path("/models/of-the-team") / reference.path.removeprefix("team:"))
    ```
    """


@hookspec(firstresult=True)
def load_model(reference: ModelReference, context: LoadContext, options: Any) -> Checkpoint | None:
    """Opens a model as a checkpoint: names, shapes and dtypes, but no weights. None: ask the next plugin.

    `reference.path` is where the model is by now. Open files through `context.open_file`, which checks that they are
    regular and unchanged until the merge is published. For a path that is joined with a name from the model's own
    files, give it `inside`, the model's directory: it then refuses what leads out of that, by a link or by `..`.
    Raise `InputError` to refuse a model.

    ```python
    from modelmerger import FileCheckpoint, StoredTensor, TensorInfo, hookimpl

    @hookimpl
    def load_model(reference, context):
        if not reference.path.endswith(".f32"):        # a file that is one vector of float32, nothing else
            return None
        file = context.open_file(reference.path)
        vector = StoredTensor(file, 0, TensorInfo("F32", (file.size // 4,)))
        return FileCheckpoint(reference.name, {"vector": vector}, context.files, (file,))
    ```
    """


@hookspec
def view_models(
    checkpoints: Sequence[Checkpoint], settings: Settings, context: LoadContext, options: Any
) -> Sequence[Checkpoint] | None:
    """Returns views of the models, which take their place in the whole merge. None: they stay as they are.

    Every plugin and the strategy are asked in turn, and each gets what the one before it returned. `checkpoints`
    are the models in the order of the config, then the base model if there is one; the answer has as many, in this
    order. A merge among them is viewed as a whole: for the models within it, only the strategy of that merge is
    asked, and plugins whose module says `within_merges = ["view_models"]`. Called before the models are checked
    against each other; read no weights here. A view keeps name, files and directory. Its names, shapes, dtypes and
    config are part of the plan's digest, and its numbers are through `content`. Use `LayerView`, `CheckpointView`, or
    `JoinedView` for weights beside the model's, which `context.open_model` opens, or derive from the second.

    ```python
    from modelmerger import CheckpointView, hookimpl

    @hookimpl
    def view_models(checkpoints):                      # without a projector that only some of the models have
        def kept(model):
            return {name: name for name in model.tensors if not name.startswith("projector.")}

        return [CheckpointView(model, kept(model)) for model in checkpoints]
    ```
    """


@hookspec
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Any) -> Iterable[Problem]:
    """Yields problems with merging these models, from headers and JSON alone. Every plugin and the strategy are asked.

    `checkpoints` are the models in the order of the config, then the base model if there is one, as `view_models` left
    them. `settings.donor` is the index of the one whose config and tokenizer the merged model gets. An error ends the
    merge before anything is written (exit status 3). Warnings and notes go into the report.

    ```python
    from modelmerger import Problem, hookimpl

    @hookimpl
    def check_compatibility(checkpoints):
        for checkpoint in checkpoints:
            if len(checkpoint.tensors) == 1:
                yield Problem("holds a single tensor. Is this the whole model?", checkpoint.name, severity="warning")
    ```
    """


@hookspec(firstresult=True)
def compose_model(
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    coefficients: Callable[[], Coefficients] | None,
    options: Any,
) -> Composition | DeferredComposition | None:
    """Composes the output of the models: a checkpoint whose tensors are written as they are read. None: ask the next.

    A strategy may have this hook as its only way to merge; it is asked after all plugins. Called before the merge is
    planned, and also where it is only checked, so no weights may be read. Where the names, shapes or dtypes of the
    tensors depend on weights, answer with a `DeferredComposition`, whose `compose` may read them and is called if the
    merge is planned. Tensors are read later, in slices and from several threads, and may be computed then.

    `checkpoints`: as in `check_compatibility`. `coefficients()` returns the strategy as it acts on updates, which are
    what the models change of the base, the last of the checkpoints: `coefficients()(tensor, shape, gram)` returns one
    number a model for a tensor that any of them `changes`. It raises `ConfigError` for weights that make no sense, and
    is None where the strategy merges no updates, or there is no base. Raise `ModelCompatibilityError` or `ConfigError`
    where a composition is wanted and impossible.

    ```python
    from modelmerger import Composition, TensorSelection, Traits, hookimpl

    traits = Traits(models=(2, 2))

    @hookimpl
    def compose_model(checkpoints):                    # the first model with the embedding of the second
        selected = {name: (checkpoints["embed" in name], name) for name in checkpoints[0].tensors}
        return Composition(TensorSelection("grafted", selected))
    ```
    """
